"""The views of a batch's images: made one by one as the images come, or all at once on the device."""

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
"""Larger images, over a million pixels of colour, do not wait for the views of their batch: theirs are made at once."""


@dataclasses.dataclass(frozen=True)
class ViewTask:
    """A view that images are needed in: of one member if it is random, else of all that share it.

    Attributes:
        name: key of `Batch.pixels`.
        settings: of the view.
        member: whose random draws it takes, or None.
        views: how many views of a galaxy.
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
    return (
        ViewTask(f"{random_of}:{name}", view, random_of, passes)
        if random_of
        else ViewTask(name, view, None, 1)
    )


def needed_side(tasks: Sequence[ViewTask]) -> int | None:
    """The shorter side, in pixels, that an image must keep for all views; None if it must stay whole."""
    sides = [least_side(task.settings) for task in tasks]
    known = [side for side in sides if side is not None]
    return max(known) if len(known) == len(sides) else None


@dataclasses.dataclass(frozen=True)
class Raw:
    """An image that waits for its views.

    Attributes:
        shape: of its pixels: height, width, channels.
        draws: the random numbers of its views.
        pixels: these themselves, uint8, if they are on the device already.
    """

    shape: tuple[int, ...]
    draws: list[Draw]
    pixels: torch.Tensor | None = None


class BatchViews(abc.ABC):
    """The views of one task: every image leaves something in memory of its own, of which the batch's views are made.

    Args:
        task: which views.
        view: the view.

    Attributes:
        stride: bytes that an image may leave.
    """

    stride: int

    def __init__(self, task: ViewTask, view: View) -> None:
        self.task, self._shape = task, (task.views, *view.shape)
        self._bytes = math.prod(self._shape)

    @abc.abstractmethod
    def fill(self, memory: np.ndarray, image: Image.Image, keys: Sequence[int | None]) -> Raw | None:
        """Take an image, in any thread or process.

        Args:
            memory: where to leave its pixels, uint8, shape (stride,).
            image: of mode RGB.
            keys: where the random draws of each view start; None without random draws.

        Returns:
            What waits there, or None for finished views.
        """

    @abc.abstractmethod
    def collect(
        self, memory: np.ndarray, chosen: Sequence[int], left: Sequence[Raw | None], device: str
    ) -> torch.Tensor:
        """The views of images; the memory can be used again.

        Args:
            memory: uint8, shape (image, stride).
            chosen: which images.
            left: what `fill` returned for each of them.
            device: where they are needed.

        Returns:
            uint8, shape (galaxy, view, channel, height, width): on the device where they fit beside other batches', else in
            memory from which a GPU copies.

        Raises:
            Exception: a view cannot be made; of which image, is not said.
        """


class EarlyViews(BatchViews):
    """Views made one by one, where the image was read."""

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
    """Views made of all images at once, on the device; those of large images where these are read."""

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
        """Take an image that was decoded on the device: uint8, shape (height, width, 3); `keys` as of `fill`."""
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
