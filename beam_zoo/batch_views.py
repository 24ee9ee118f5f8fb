"""The views of a batch's images: made one by one as the images come, or all at once on the device."""

import abc
import dataclasses
import hashlib
import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from beam_zoo.device import SideStream, host_buffer, waits_on_device
from beam_zoo.fast_views import Draw, FastView
from beam_zoo.images import LARGE_PIXELS
from beam_zoo.members import Member
from beam_zoo.plan import Plan
from beam_zoo.views import View, least_side

_ONE_LARGE_IMAGE = threading.Lock()


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


class BatchViews(abc.ABC):
    """The views of one task of a batch's images.

    Args:
        task: which views.
        images: how many images the batch has.
        keys: where the random draws of each image and pass start, uint64, shape (image, view), or None.
    """

    def __init__(self, task: ViewTask, images: int, keys: np.ndarray | None) -> None:
        self.task, self._images, self._keys = task, images, keys

    @abc.abstractmethod
    def add(self, index: int, image: Image.Image) -> None:
        """Take an image, in any thread and any order."""

    @abc.abstractmethod
    def pixels(self, good: np.ndarray) -> torch.Tensor:
        """The views of these images: uint8, shape (galaxy, view, channel, height, width).

        On the device where they fit beside other batches', else in memory from which a GPU copies.

        Raises:
            Exception: a view cannot be made; of which image, is not said.
        """

    def _keys_of(self, index: int) -> list[int | None]:
        """Where the draws of each view of an image start; None for the one view without random draws."""
        return [None] if self._keys is None else [int(key) for key in self._keys[index]]


class EarlyViews(BatchViews):
    """Views made one by one, in the thread that read the image.

    Args:
        view: the view.
        device: where the pixels are needed.
        others: as of `BatchViews`.
    """

    def __init__(self, view: View, device: str, *others: Any) -> None:
        super().__init__(*others)
        self._view, self._device = view, device
        self._lock = threading.Lock()
        self._buffer: torch.Tensor | None = None

    def add(self, index: int, image: Image.Image) -> None:
        with self._lock:
            if self._buffer is None:  # not before: batches wait to be decoded
                shape = (self._images, self.task.views, *self._view.shape)
                self._buffer = host_buffer(shape, self._device)
        into = self._buffer[index].numpy()
        for number, key in enumerate(self._keys_of(index)):
            into[number] = self._view.pixels(image, key)

    def pixels(self, good: np.ndarray) -> torch.Tensor:
        if self._buffer is None:
            shape = (0, self.task.views, *self._view.shape)
            return torch.empty(shape, dtype=torch.uint8, device=self._device)
        shape = (len(good), *self._buffer.shape[1:])
        chosen = self._buffer
        if len(good) < self._images:
            chosen = torch.index_select(
                chosen, 0, torch.from_numpy(good), out=host_buffer(shape, self._device)
            )
        return chosen.to(self._device, non_blocking=True) if waits_on_device(shape) else chosen


class LateViews(BatchViews):
    """Views made of all images at once, on the device; those of large images, of which a batch would be too much, one by one.

    Args:
        view: the view.
        stream: where the views of large images are made.
        others: as of `BatchViews`.
    """

    def __init__(self, view: FastView, stream: SideStream, *others: Any) -> None:
        super().__init__(*others)
        self._view, self._stream = view, stream
        self._raw: dict[int, torch.Tensor] = {}
        self._draws: dict[int, list[Draw]] = {}
        self._made: dict[int, torch.Tensor] = {}

    def add(self, index: int, image: Image.Image) -> None:
        draws = [self._view.draw(image.height, image.width, key) for key in self._keys_of(index)]
        raw = self._view.raw(image)
        if image.height * image.width > LARGE_PIXELS:
            with _ONE_LARGE_IMAGE, self._stream():
                self._made[index] = self._view.batch([raw], [draws], self.task.views).cpu()
        else:
            self._raw[index], self._draws[index] = raw, draws

    def pixels(self, good: np.ndarray) -> torch.Tensor:
        small = [index for index in good if index in self._raw]
        views = self._view.batch(
            [self._raw[index] for index in small], [self._draws[index] for index in small], self.task.views
        )
        if len(small) == len(good):
            return views
        large = [index for index in good if index in self._made]
        together = torch.cat([views, *(self._made[index].to(views.device) for index in large)])
        return together[np.argsort([*small, *large])]
