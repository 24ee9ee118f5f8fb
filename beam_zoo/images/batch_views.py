"""The views of a batch of images: made one by one as each image is decoded, or all at once on the device."""

import abc
import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from beam_zoo.images.fast_views import Draw, FastView
from beam_zoo.images.views import View, faster, least_side
from beam_zoo.runtime.device import host_buffer, pixel_buffer, waits_on_device

RAW_BYTES = 3_000_000
"""Views of larger images (over a million colour pixels) are made one by one, to limit memory."""


@dataclasses.dataclass(frozen=True)
class ViewTask:
    """A view that members need: of one member if it is random, else of all members with the same settings.

    Attributes:
        name: key of `Batch.pixels`.
        settings: of the view.
        member: the member for which random numbers are drawn, or None.
        views: number of views of a galaxy.
    """

    name: str
    settings: dict[str, Any]
    member: str | None
    views: int


def view_task(view: dict[str, Any], random_of: str | None, passes: int) -> ViewTask:
    """The view task of a member.

    Args:
        view: settings of its view.
        random_of: the member's name if its view is random, else None: members then share it.
        passes: number of passes.
    """
    settings = json.dumps(view, sort_keys=True)
    name = hashlib.sha256(settings.encode()).hexdigest()[:16]
    if random_of:
        return ViewTask(f"{random_of}:{name}", view, random_of, passes)
    return ViewTask(name, view, None, 1)


def needed_side(tasks: Sequence[ViewTask]) -> int | None:
    """The shorter side, in pixels, that an image must keep for all views; None if it must stay whole."""
    sides = [least_side(task.settings) for task in tasks]
    known = [side for side in sides if side is not None]
    return max(known) if len(known) == len(sides) else None


@dataclasses.dataclass(frozen=True)
class Raw:
    """A decoded image whose views are made later, with those of its batch.

    Attributes:
        shape: (height, width, channel).
        draws: the random numbers of its views.
        pixels: uint8, if the image was decoded on the device; else None, and the pixels are in host memory.
    """

    shape: tuple[int, ...]
    draws: list[Draw]
    pixels: torch.Tensor | None = None


class BatchViews(abc.ABC):
    """Makes the views of one task in two steps: `fill` for each image, then `collect` for the batch.

    Args:
        task: the view task.
        view: the view.

    Attributes:
        stride: bytes of memory for each image, from `fill` to `collect`.
    """

    stride: int

    def __init__(self, task: ViewTask, view: View) -> None:
        self.task, self._shape = task, (task.views, *view.shape)
        self._bytes = math.prod(self._shape)

    @abc.abstractmethod
    def fill(self, memory: np.ndarray, image: Image.Image, keys: Sequence[int | None]) -> Raw | None:
        """Write an image's views, or its pixels, into memory; in any thread or process.

        Args:
            memory: of this image, uint8, shape (stride,).
            image: of mode RGB.
            keys: the random key of each view; None for a view without random draws.

        Returns:
            None if the views are written, else the description of the pixels.
        """

    @abc.abstractmethod
    def collect(
        self, memory: np.ndarray, chosen: Sequence[int], left: Sequence[Raw | None], device: str
    ) -> torch.Tensor:
        """The views of some images of a batch, copied: the memory can be reused.

        Args:
            memory: uint8, shape (image, stride).
            chosen: indices of the images.
            left: what `fill` returned for each of them.
            device: `cpu` or `cuda`.

        Returns:
            uint8, shape (galaxy, view, channel, height, width): on the device if the batch is small enough,
            else in pinned host memory.

        Raises:
            Exception: a view of one of the images cannot be made.
        """


class EarlyViews(BatchViews):
    """Makes the views of each image in `fill`."""

    def __init__(self, task: ViewTask, view: View) -> None:
        super().__init__(task, view)
        self._view = view
        self.stride = self._bytes

    def fill(self, memory: np.ndarray, image: Image.Image, keys: Sequence[int | None]) -> Raw | None:
        views = memory[: self._bytes].reshape(self._shape)
        image = faster(image)
        for number, key in enumerate(keys):
            views[number] = self._view.pixels(image, key)
        return None

    def collect(
        self, memory: np.ndarray, chosen: Sequence[int], left: Sequence[Raw | None], device: str
    ) -> torch.Tensor:
        finished = memory[:, : self._bytes]
        if len(chosen) < len(memory):
            finished = finished[list(chosen)]
        shape = (len(chosen), *self._shape)
        pixels = host_buffer(shape, device).copy_(torch.from_numpy(finished).reshape(shape))
        return pixels.to(device, non_blocking=True) if waits_on_device(shape) else pixels


class LateViews(EarlyViews):
    """Makes the views of all images in `collect`, on the device; those of large images in `fill`."""

    def __init__(self, task: ViewTask, view: FastView) -> None:
        super().__init__(task, view)
        self._fast = view
        self.stride = max(RAW_BYTES, self.stride)

    def fill(self, memory: np.ndarray, image: Image.Image, keys: Sequence[int | None]) -> Raw | None:
        channels = self._shape[1]
        if image.width * image.height * channels > RAW_BYTES:
            return super().fill(memory, image, keys)
        pixels = self._fast.raw(image)
        memory[: pixels.size] = pixels.reshape(-1)
        draws = [self._fast.draw(image.height, image.width, key) for key in keys]
        return Raw(pixels.shape, draws)

    def keep(self, pixels: torch.Tensor, keys: Sequence[int | None]) -> Raw:
        """Like `fill`, for an image that was decoded on the device: uint8, shape (height, width, 3)."""
        height, width = pixels.shape[:2]
        return Raw(tuple(pixels.shape), [self._fast.draw(height, width, key) for key in keys], pixels)

    def collect(
        self, memory: np.ndarray, chosen: Sequence[int], left: Sequence[Raw | None], device: str
    ) -> torch.Tensor:
        raws = [place for place, raw in enumerate(left) if raw is not None]
        if not raws:
            return super().collect(memory, chosen, left, device)
        shape = (len(chosen), *self._shape)
        out = pixel_buffer(shape, device)
        images: list[torch.Tensor] = []
        draws = []
        for place in raws:
            raw = left[place]
            assert raw is not None
            if raw.pixels is None:
                images.append(torch.from_numpy(memory[chosen[place], : math.prod(raw.shape)]).view(raw.shape))
            else:
                images.append(raw.pixels)
            draws.append(raw.draws)
        self._fast.batch(images, draws, out, raws)
        for place, raw in enumerate(left):
            if raw is None:
                out[place] = torch.from_numpy(memory[chosen[place], : self._bytes]).view(self._shape)
        return out
