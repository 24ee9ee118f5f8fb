"""The views of a batch's images: made one by one as the images come, or all at once on the device."""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from beam_zoo.device import host_buffer
from beam_zoo.fast_views import Draw, FastView
from beam_zoo.members import Member
from beam_zoo.plan import Plan
from beam_zoo.views import View, least_side


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


def view_task(member: Member, plan: Plan) -> ViewTask:
    """The view task of a member."""
    settings = json.dumps(member.view, sort_keys=True)
    name = hashlib.sha256(settings.encode()).hexdigest()[:16]
    if member.random_view:
        return ViewTask(f"{member.name}:{name}", member.view, member.name, plan.passes)
    return ViewTask(name, member.view, None, 1)


def needed_side(tasks: Sequence[ViewTask]) -> int | None:
    """The shorter side, in pixels, that an image must keep for all views; None if it must stay whole."""
    sides = [least_side(task.settings) for task in tasks]
    known = [side for side in sides if side is not None]
    return max(known) if len(known) == len(sides) else None


class BatchViews(Protocol):
    """The views of one task of a batch's images."""

    task: ViewTask

    def add(self, index: int, image: Image.Image) -> None:
        """Take an image, in any thread and any order."""

    def pixels(self, good: np.ndarray) -> torch.Tensor:
        """The views of these images, on the device: uint8, shape (galaxy, view, channel, height, width)."""


def _keys_of(keys: np.ndarray | None, index: int) -> list[int | None]:
    """Where the draws of each view of an image start; None for the one view without random draws."""
    return [None] if keys is None else [int(key) for key in keys[index]]


class EarlyViews:
    """Views made one by one, in the thread that read the image.

    Args:
        task: which views.
        view: the view.
        images: how many images the batch has.
        keys: where the random draws of each image and pass start, uint64, shape (image, view), or None.
        device: where the pixels are needed.
    """

    def __init__(
        self,
        task: ViewTask,
        view: View,
        images: int,
        keys: np.ndarray | None,
        device: str,
    ) -> None:
        self.task, self._view, self._keys, self._device = task, view, keys, device
        self._images, self._lock = images, threading.Lock()
        self._buffer: torch.Tensor | None = None

    def add(self, index: int, image: Image.Image) -> None:
        with self._lock:
            if self._buffer is None:  # not before: batches wait to be decoded
                shape = (self._images, self.task.views, *self._view.shape)
                self._buffer = host_buffer(shape, self._device)
        into = self._buffer[index].numpy()
        for number, key in enumerate(_keys_of(self._keys, index)):
            into[number] = self._view.pixels(image, key)

    def pixels(self, good: np.ndarray) -> torch.Tensor:
        if self._buffer is None:
            return torch.empty(
                (0, self.task.views, *self._view.shape), dtype=torch.uint8, device=self._device
            )
        chosen = self._buffer if len(good) == self._images else self._buffer[torch.from_numpy(good)]
        return chosen.to(self._device, non_blocking=True)


class LateViews:
    """Views made of all images at once, on the device.

    Args:
        task: which views.
        view: the view.
        images: how many images the batch has.
        keys: where the random draws of each image and pass start, uint64, shape (image, view), or None.
    """

    def __init__(self, task: ViewTask, view: FastView, images: int, keys: np.ndarray | None) -> None:
        self.task, self._view, self._keys = task, view, keys
        self._images: list[torch.Tensor | None] = [None] * images
        self._draws: list[list[Draw]] = [[] for _ in range(images)]

    def add(self, index: int, image: Image.Image) -> None:
        keys = _keys_of(self._keys, index)
        self._draws[index] = [self._view.draw(image.height, image.width, key) for key in keys]
        self._images[index] = self._view.raw(image)

    def pixels(self, good: np.ndarray) -> torch.Tensor:
        images = [image for index in good if (image := self._images[index]) is not None]
        return self._view.batch(images, [self._draws[index] for index in good])
