"""Decoders of images: the interface, and the threads that a CPU uses. GPUs use `decoding_processes`."""

import abc
import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from beam_zoo.errors import UserError, one_line
from beam_zoo.images import decode as images
from beam_zoo.images.batch_views import BatchViews, EarlyViews, LateViews, Raw, ViewTask
from beam_zoo.images.failure import Failure
from beam_zoo.images.fast_views import FastView
from beam_zoo.images.views import View, faster
from beam_zoo.runtime.device import host_buffer, one_thread, out_of_memory

AHEAD = {"cpu": False, "cuda": True}
"""Whether images are decoded, and views made, while another batch is predicted.

Not on a CPU: there the encoder's threads use all cores and wait for the slowest of them.
"""
Left = Failure | list[Raw | None]
"""The result of an image: for every view task what `BatchViews.fill` returned, or a failure."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An image to decode.

    Attributes:
        offset: of its galaxy in the snippet.
        source: its path, its bytes, or a failure; None if it is decoded already.
        keys: for every view task, the random key of each view, or None.
    """

    offset: int
    source: str | bytes | Failure | None
    keys: list[list[int | None]]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What is done with every image. It is pickled for other processes.

    Attributes:
        tasks: views that are needed.
        late: whether `LateViews` make the views, with `FastView`, instead of `EarlyViews`.
        least_side: see `images.decode`.
    """

    tasks: list[ViewTask]
    late: bool
    least_side: int | None

    def views(self, device: str) -> list[BatchViews]:
        """The `BatchViews` of every task.

        Args:
            device: `cpu` or `cuda`, where `LateViews` work.

        Raises:
            UserError: `late` is set, and `FastView` does not support a view.
        """
        if self.late:
            return [LateViews(task, FastView(task.settings, device)) for task in self.tasks]
        return [EarlyViews(task, View(task.settings)) for task in self.tasks]


def decode(
    wanted: Wanted, views: Sequence[BatchViews], memory: Sequence[np.ndarray], side: int | None
) -> Left:
    """Read and decode an image, and give it to `BatchViews.fill` of every task.

    Args:
        wanted: the image.
        views: of every task.
        memory: of every task, this image's row.
        side: `least_side` of `images.decode`.
    """
    source = wanted.source
    if isinstance(source, Failure):
        return source
    if source is None:
        return []
    try:
        if isinstance(source, bytes):
            image = images.decode(source, side)
        else:
            image = images.load_image(source, side)
    except images.ImageError as error:
        return image_failure(wanted.offset, error)
    large = image.width * image.height > images.LARGE_PIXELS
    try:
        with images.ONE_LARGE_IMAGE if large else contextlib.nullcontext():
            filled = zip(views, memory, wanted.keys, strict=True)
            return [view.fill(own, image, keys) for view, own, keys in filled]
    except Exception as error:
        return view_failure(wanted.offset, error)


def image_failure(offset: int, error: images.ImageError) -> Failure:
    """The failure of an image that could not be read or decoded."""
    return Failure(offset, "image", one_line(error), error.may_pass)


def view_failure(offset: int, error: Exception) -> Failure:
    """The failure of a view that could not be made; retryable if memory was short."""
    short = isinstance(error, RuntimeError) and out_of_memory(error)
    return Failure(offset, "view", one_line(error), short or isinstance(error, MemoryError | UserError))


@dataclasses.dataclass
class Decoded:
    """A decoded batch.

    Attributes:
        memory: of every view task, uint8, shape (image, stride).
        left: the result of every image.
        done: releases the memory; to be called after `BatchViews.collect`.
    """

    memory: list[np.ndarray]
    left: list[Left]
    done: Callable[[], None]


class Decoders(abc.ABC):
    """Decodes images in threads, in processes or on a GPU.

    Args:
        decoding: what is done with every image.
        cores: number of cores to use.
        device: `cpu` or `cuda`, where `LateViews` work.
    """

    def __init__(self, decoding: Decoding, cores: int, device: str) -> None:
        self.decoding, self.cores, self.device = decoding, cores, device
        self.views = decoding.views(device)

    @abc.abstractmethod
    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        """Begin to decode a batch.

        Args:
            wanted: functions that return the images, waiting for those that are being downloaded.

        Returns:
            A function that waits for the decoded batch.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the threads and processes."""


class Threads(Decoders):
    """Decodes in threads of this process, while the caller waits for the batch, between forward passes."""

    def __init__(self, decoding: Decoding, cores: int, device: str) -> None:
        super().__init__(decoding, cores, device)
        if not decoding.late:
            faster(Image.new("RGB", (1, 1)))  # import what it needs now
        self._threads = max(2, cores)
        self._pool = concurrent.futures.ThreadPoolExecutor(self._threads, initializer=one_thread)

    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        def finish() -> Decoded:
            memory = [host_buffer((len(wanted), view.stride), self.device).numpy() for view in self.views]
            found: dict[int, Left] = {}
            to_do = iter(range(len(wanted)))

            def some() -> None:
                # All threads share one iterator: a task of the pool for each image would cost 5% of its time.
                for index in to_do:
                    own = [each[index] for each in memory]
                    found[index] = decode(wanted[index](), self.views, own, self.decoding.least_side)

            working = [self._pool.submit(some) for _ in range(self._threads)]
            try:
                concurrent.futures.wait(working, return_when=concurrent.futures.FIRST_EXCEPTION)
            finally:
                collections.deque(to_do, maxlen=0)  # if one thread has failed, the others stop
            for each in working:
                each.result()
            return Decoded(memory, [found[index] for index in range(len(wanted))], lambda: None)

        return finish

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
