"""JPEGs decoded by the GPU's JPEG engines, to within a grey level of Pillow's pixels.

A GPU predicts more images a second than its machine's cores decode. Its JPEG engines (an A100 and an H100
have some, a T4 not) work beside the forward pass. Files that they do not support are decoded by other
`Decoders`.
"""

import functools
import io
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from beam_zoo.errors import one_line
from beam_zoo.images import decode as images
from beam_zoo.images.batch_views import RAW_BYTES, LateViews
from beam_zoo.images.decoders import Decoded, Decoders, Left, Wanted, view_failure
from beam_zoo.images.gpu.jpeg import usual_size
from beam_zoo.runtime.device import SideStream

LOGGER = logging.getLogger("beam_zoo")
_WITHOUT_GPU = -99999
"""nvImageCodec's device number without a GPU: libjpeg-turbo decodes."""
CALL_IMAGES = 16
"""Images of one call: beside forward passes 16 at a time were faster than 256 (H200, one decoder)."""


class NoCardDecoder(Exception):
    """The GPU's decoder cannot be used here; the message says why."""


class CardDecoder:
    """nvImageCodec's decoder of JPEGs on a GPU's JPEG engines.

    Args:
        device: `cuda`; or `cpu`, for tests with libjpeg-turbo.
        calls: number of threads that may decode at the same time. Several are faster: the kernels that follow
            the engines' work wait for those of forward passes.

    Raises:
        NoCardDecoder: the library is not installed, or the GPU has no engines.
    """

    def __init__(self, device: str, calls: int = 1) -> None:
        # Before its import: it would print a line for each image that it cannot decode.
        os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
        try:
            from nvidia import nvimgcodec
        except ImportError as error:
            raise NoCardDecoder(f"{one_line(error)}: pip install 'beam-zoo[gpu]'") from None
        gpu = device == "cuda"
        backend = nvimgcodec.Backend(nvimgcodec.HW_GPU_ONLY if gpu else nvimgcodec.CPU_ONLY)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(calls):
            try:
                decoder = nvimgcodec.Decoder(
                    device_id=torch.cuda.current_device() if gpu else _WITHOUT_GPU,
                    max_num_cpu_threads=1,
                    backends=[backend],
                    options=":fancy_upsampling=1",  # as libjpeg-turbo
                )
            except RuntimeError as error:
                raise NoCardDecoder(one_line(error)) from None
            self._free.put((decoder, SideStream(device)))
        self._stream_of = nvimgcodec.CodeStream
        self._settings = nvimgcodec.DecodeParams(apply_exif_orientation=False)
        self._tensor = torch.from_dlpack if gpu else lambda image: torch.from_numpy(np.asarray(image))
        self._warned = True  # not while it is tried
        blank = io.BytesIO()
        Image.new("RGB", (64, 64)).save(blank, "JPEG")
        for _ in range(calls):
            if self.decode([blank.getvalue()], None) == [None]:
                raise NoCardDecoder("it did not decode a test image: it may have no JPEG engines")
        self._warned = False

    def decode(self, files: Sequence[bytes | None], least_side: int | None) -> list[torch.Tensor | None]:
        """The pixels of images, within a grey level of Pillow's.

        Args:
            files: content of each file, or None.
            least_side: see `images.decode`; files that it would decode to a smaller size are left out.

        Returns:
            Of each file uint8, shape (height, width, 3), on the device; None if another decoder is needed.
            Keep a reference until the GPU has read them: the engines reuse the memory without waiting.
        """
        found: list[torch.Tensor | None] = [None] * len(files)
        taken = {index: data for index, data in enumerate(files) if data and _is_supported(data, least_side)}
        if not taken:
            return found
        reason = "it gave no pixels"
        decoder, beside = free = self._free.get()
        try:
            with beside() as current:
                streams = list(map(self._stream_of, taken.values()))
                decoded = decoder.decode(streams, params=self._settings, cuda_stream=current)
                for index, image in zip(taken, decoded, strict=True):
                    if image is not None:
                        found[index] = self._tensor(image)  # the current stream waits for the decoder's
        except RuntimeError as error:
            reason = one_line(error)
        finally:
            self._free.put(free)
        if not self._warned and any(found[index] is None for index in taken):
            self._warned = True
            LOGGER.warning("the GPU's decoder failed (%s): processor cores decode some images", reason)
        return found

    def close(self) -> None:
        """Close the decoders; no thread may be decoding."""
        while not self._free.empty():
            self._free.get()[0].__exit__(None, None, None)


def _is_supported(data: bytes, least_side: int | None) -> bool:
    """Whether the GPU decodes a file as Pillow does, and its pixels may wait for the views of the batch."""
    size = usual_size(data)
    if size is None or 3 * size[0] * size[1] > RAW_BYTES or max(size) > images.MAX_ASPECT * min(size):
        return False
    return least_side is None or min(size) < 2 * least_side


class OnCard(Decoders):
    """Decodes on the GPU what it supports, and the rest by other decoders, which start when they are needed.

    Args:
        card: the GPU's decoder.
        make_others: makes the other decoders.
        decoders: arguments of `Decoders`.
    """

    def __init__(self, card: CardDecoder, make_others: Callable[[], Decoders], *decoders: Any) -> None:
        super().__init__(*decoders)
        self._card, self._make_others = card, make_others
        self._late = [view for view in self.views if isinstance(view, LateViews)]
        self._others: Decoders | None = None
        self._starting = threading.Lock()

    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        def finish() -> Decoded:
            some: list[Wanted] = []
            left: list[Left | None] = []
            for start in range(0, len(wanted), CALL_IMAGES):  # so that few files are in memory
                piece = [get() for get in wanted[start : start + CALL_IMAGES]]
                pixels = self._card.decode(list(map(_file, piece)), self.decoding.least_side)
                left += [self._kept(*each) for each in zip(piece, pixels, strict=True)]
                some += piece
            done = [own for own in left if own is not None]
            if len(done) == len(wanted):
                nothing = [np.empty((0, view.stride), np.uint8) for view in self.views]
                return Decoded(nothing, done, lambda: None)
            # All images, so that indices stay the same: one without a source takes no work and no memory.
            rest = [
                one if own is None else Wanted(one.offset, None, [])
                for one, own in zip(some, left, strict=True)
            ]
            found = self._rest().start([functools.partial(_known, one) for one in rest])()
            found.left = [own or other for own, other in zip(left, found.left, strict=True)]
            return found

        return finish

    def _kept(self, wanted: Wanted, pixels: torch.Tensor | None) -> Left | None:
        if pixels is None:
            return None
        try:
            return [view.keep(pixels, keys) for view, keys in zip(self._late, wanted.keys, strict=True)]
        except Exception as error:
            return view_failure(wanted.offset, error)

    def _rest(self) -> Decoders:
        with self._starting:
            if self._others is None:
                self._others = self._make_others()
            return self._others

    def close(self) -> None:
        self._card.close()
        if self._others is not None:
            self._others.close()


def _known(wanted: Wanted) -> Wanted:
    return wanted


def _file(wanted: Wanted) -> bytes | None:
    if not isinstance(wanted.source, str):
        return wanted.source if isinstance(wanted.source, bytes) else None
    try:
        # A file larger than RAW_BYTES has more pixels than `_is_supported` allows.
        return images.read_bytes(wanted.source) if os.path.getsize(wanted.source) <= RAW_BYTES else None
    except (OSError, ValueError, images.ImageError):
        return None  # the other decoders report the failure
