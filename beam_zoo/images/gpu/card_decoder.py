"""JPEGs decoded by the GPU's own decoder, many at once, to Pillow's pixels within a grey level.

A GPU takes more images a second than its machine's cores decode; its JPEG engines (an A100 and an H100 have
them, a T4 not) decode them beside the forward pass. What they do not take, others decode.
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
"""nvImageCodec's device where there is no GPU: libjpeg-turbo decodes."""
CALL_IMAGES = 16
"""Images of one call: beside forward passes, 16 at a time were decoded faster than 256 (H200, one decoder)."""


class NoCardDecoder(Exception):
    """The GPU's decoder cannot be used here; the message says why."""


class CardDecoder:
    """nvImageCodec's decoder of JPEGs, on the engines that a GPU has for that.

    Args:
        device: `cuda`; or `cpu`, where libjpeg-turbo stands in for them.
        calls: how many threads may decode at the same time. What follows the engines' work waits for its turn behind the
            kernels of forward passes; other threads' images go on meanwhile.

    Raises:
        NoCardDecoder: the library or the engines are not there.
    """

    def __init__(self, device: str, calls: int = 1) -> None:
        # Before its import: it would print a line for each image that it does not take.
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
        self._said = True
        blank = io.BytesIO()
        Image.new("RGB", (64, 64)).save(blank, "JPEG")
        for _ in range(calls):
            if self.decode([blank.getvalue()], None) == [None]:
                raise NoCardDecoder("a first one came to nothing: it may have no engines for them")
        self._said = False

    def decode(self, files: Sequence[bytes | None], least_side: int | None) -> list[torch.Tensor | None]:
        """The pixels of images, as Pillow decodes them, within a grey level.

        Args:
            files: content of each file, or None.
            least_side: as of `images.decode`; what that makes smaller is not taken.

        Returns:
            Of each file uint8, shape (height, width, 3), on the device; or None: it is to be decoded otherwise. Who reads
            them on a GPU must be done before they are forgotten: its engines do not wait for that before they write anew.
        """
        found: list[torch.Tensor | None] = [None] * len(files)
        taken = {index: data for index, data in enumerate(files) if data and _suits(data, least_side)}
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
                        found[index] = self._tensor(image)  # the current stream waits for it
        except RuntimeError as error:
            reason = one_line(error)
        finally:
            self._free.put(free)
        if not self._said and any(found[index] is None for index in taken):
            self._said = True  # once is enough
            LOGGER.warning("the GPU's decoder failed (%s): processor cores decode some images", reason)
        return found

    def close(self) -> None:
        """End the decoders; nobody may be decoding."""
        while not self._free.empty():
            self._free.get()[0].__exit__(None, None, None)


def _suits(data: bytes, least_side: int | None) -> bool:
    """Whether the card decodes a file to what Pillow does, and the pixels are few enough to wait for their views."""
    size = usual_size(data)
    if size is None or 3 * size[0] * size[1] > RAW_BYTES or max(size) > images.MAX_ASPECT * min(size):
        return False
    return least_side is None or min(size) < 2 * least_side


class OnCard(Decoders):
    """The GPU decodes what it can; the rest is left to others, who start when there is some.

    Args:
        card: the GPU's decoder.
        others: makes who decodes the rest.
        given: as of `Decoders`.
    """

    def __init__(self, card: CardDecoder, others: Callable[[], Decoders], *given: Any) -> None:
        super().__init__(*given)
        self._card, self._make_others = card, others
        self._late = [view for view in self.views if isinstance(view, LateViews)]
        self._others: Decoders | None = None
        self._starting = threading.Lock()

    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        def finish() -> Decoded:
            some: list[Wanted] = []
            left: list[Left | None] = []
            for start in range(0, len(wanted), CALL_IMAGES):  # no more files than that are in memory
                piece = [get() for get in wanted[start : start + CALL_IMAGES]]
                pixels = self._card.decode(list(map(_file, piece)), self.decoding.least_side)
                left += [self._kept(*each) for each in zip(piece, pixels, strict=True)]
                some += piece
            done = [own for own in left if own is not None]
            if len(done) == len(wanted):
                return Decoded(
                    [np.empty((0, view.stride), np.uint8) for view in self.views], done, lambda: None
                )
            # Every image keeps its place in the memory of the others, of whose processes only what is written takes any.
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
        # Larger than its pixels may be: it is no image for the card.
        return images.read_bytes(wanted.source) if os.path.getsize(wanted.source) <= RAW_BYTES else None
    except (OSError, ValueError, images.ImageError):
        return None  # whoever decodes the rest says why
