"""PIL images with the affine transform and resize of `kernels.resample`: views take a third of the time."""

import contextlib
import functools
import logging
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from beam_zoo.images.kernels.resample import affine, resize

LOGGER = logging.getLogger("beam_zoo")


class CompiledImage(Image.Image):
    """A PIL image whose bilinear affine transform and resize are compiled; all else is Pillow's.

    Args:
        given: a PIL image of mode RGB or L, or pixels: uint8, shape (height, width, 3) or (height, width, 1).
    """

    def __init__(self, given: Image.Image | np.ndarray) -> None:
        super().__init__()
        if isinstance(given, Image.Image):
            self._mode, self._size = given.mode, given.size
        else:
            self._mode, self._size = "RGB" if given.shape[2] == 3 else "L", (given.shape[1], given.shape[0])
        self._given, self._loaded = given, False
        self._channels = len(self.getbands())

    @functools.cached_property
    def _pixels(self) -> np.ndarray:
        """uint8, shape (height, width, channel); Pillow stores RGB as four channels, the last one unused."""
        if isinstance(self._given, np.ndarray):
            return self._given
        pixels = None
        # Pillow's own memory, without a copy. In other modes it may belong to another object; aligned rows
        # may have gaps.
        if self.mode == "RGB" and Image.core.get_alignment() == 1:
            self._given.load()
            with contextlib.suppress(ValueError):  # a large image is in several blocks
                pixels = np.frombuffer(pa.array(self._given).buffers()[-1], np.uint8)
        if pixels is None:
            pixels = np.asarray(self._given)
        return pixels.reshape(self.height, self.width, -1)

    @functools.cached_property
    def _exactly(self) -> np.ndarray:
        return np.ascontiguousarray(self._pixels[..., : self._channels])

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._exactly.__array_interface__

    def load(self) -> Any:
        """Make the image that Pillow's own methods work with; each of them calls `load` first."""
        if not self._loaded:
            given = self._given
            if isinstance(given, np.ndarray):
                given = Image.fromarray(given if self.mode == "RGB" else given[..., 0])
            given.load()
            self.im, self._loaded = given.im, True
        return super().load()

    def convert(self, *args: Any, **settings: Any) -> Image.Image:
        """As Pillow's."""
        found = super().convert(*args, **settings)
        return CompiledImage(found) if found.mode in ("RGB", "L") else found

    def crop(self, box: tuple[float, float, float, float] | None = None) -> Image.Image:
        """As Pillow's."""
        left, top, right, bottom = map(round, box or (0, 0, *self.size))
        inside = 0 <= left < right <= self.width and 0 <= top < bottom <= self.height
        if inside and isinstance(self._given, np.ndarray):
            return CompiledImage(np.ascontiguousarray(self._given[top:bottom, left:right]))
        return CompiledImage(super().crop(box))

    def transform(
        self,
        size: tuple[int, int],
        method: Any,
        data: Any = None,
        resample: int = Image.Resampling.NEAREST,
        fill: int = 1,
        fillcolor: Any = None,
    ) -> Image.Image:
        """As Pillow's."""
        if method != Image.Transform.AFFINE or resample != Image.Resampling.BILINEAR:
            return super().transform(size, method, data, resample, fill, fillcolor)
        out = np.zeros((size[1], size[0], self._channels), np.uint8)
        if np.any(fillcolor):
            out[:] = np.clip(fillcolor, 0, 255)
        affine(self._pixels, data, out)
        return CompiledImage(out)

    def resize(
        self,
        size: Any,
        resample: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> Image.Image:
        """As Pillow's."""
        columns_first = self.height > 100 * self.width and size[1] < self.height
        bilinear = resample == Image.Resampling.BILINEAR and box is None and reducing_gap is None
        if not bilinear or columns_first or min(size) < 1:
            return super().resize(size, resample, box, reducing_gap)
        out = np.empty((size[1], size[0], self._channels), np.uint8)
        resize(self._pixels, out)
        return CompiledImage(out)


@functools.cache
def is_pillows() -> bool:
    """Whether the bits are Pillow's on this machine; warns if not.

    They differ if Pillow was built by a compiler that uses fused multiply-add instructions.
    """
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    method, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR

    def made(image: Image.Image) -> list[bytes]:
        scaled = image.transform((70, 90), method, (0.83, 0, 6.1, 0, 0.83, 7.2), bilinear)
        turned = image.transform((70, 90), method, (0.8, 0.31, -2, -0.4, 0.93, 33), bilinear)
        return [some.tobytes() for some in (scaled, turned, image.resize((31, 44), bilinear))]

    images = [Image.fromarray(noise), Image.fromarray(noise).convert("L")]
    same = all(made(CompiledImage(image)) == made(image) for image in images)
    if not same:
        LOGGER.warning(
            "Pillow's arithmetic differs from ours on this machine: Pillow itself makes the views, slower"
        )
    return same
