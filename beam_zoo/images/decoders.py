"""Where images become pixels: in threads of this process on a CPU; beside a GPU in others (`decoding_processes`)."""

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

On a CPU the encoder has all cores already, and its threads wait for each other: a core lent to a decoder costs the time of all.
"""
Left = Failure | list[Raw | None]
"""What an image leaves: for every view task what waits in memory, or why there is nothing."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An image to decode.

    Attributes:
        offset: of its galaxy in the snippet.
        source: its path, or its bytes, or why there are none; None if it is decoded already.
        keys: for every view task, where the random draws of each view start, or None.
    """

    offset: int
    source: str | bytes | Failure | None
    keys: list[list[int | None]]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What is done with every image; it travels to other processes.

    Attributes:
        tasks: views that are needed.
        late: whether views are made of all images at once, on the device, by `FastView`.
        least_side: as of `images.decode`.
    """

    tasks: list[ViewTask]
    late: bool
    least_side: int | None

    def views(self, device: str) -> list[BatchViews]:
        """How the views are made.

        Args:
            device: where those are made that are made all at once.

        Raises:
            UserError: a view has a step that is not made in batches, and is to be fast.
        """
        if self.late:
            return [LateViews(task, FastView(task.settings, device)) for task in self.tasks]
        return [EarlyViews(task, View(task.settings)) for task in self.tasks]


def decode(
    wanted: Wanted, views: Sequence[BatchViews], memory: Sequence[np.ndarray], side: int | None
) -> Left:
    """Read an image, and make its views or keep it for them.

    Args:
        wanted: the image.
        views: of every task.
        memory: of every task, the image's own.
        side: as of `images.decode`.

    Returns:
        What waits for the views of its batch, or why there is no image or no view.
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
    """An image that could not be had."""
    return Failure(offset, "image", one_line(error), error.may_pass)


def view_failure(offset: int, error: Exception) -> Failure:
    """A view that could not be made; a device with more memory may be able to."""
    short = isinstance(error, RuntimeError) and out_of_memory(error)
    return Failure(offset, "view", one_line(error), short or isinstance(error, MemoryError | UserError))


@dataclasses.dataclass
class Decoded:
    """A batch of images that are decoded.

    Attributes:
        memory: of every view task, uint8, shape (image, stride).
        left: of every image.
        done: to be called when the memory is not needed any more.
    """

    memory: list[np.ndarray]
    left: list[Left]
    done: Callable[[], None]


class Decoders(abc.ABC):
    """Workers that decode.

    Args:
        decoding: what is done.
        cores: how many may work.
        device: where views are made that are made in batches.
    """

    def __init__(self, decoding: Decoding, cores: int, device: str) -> None:
        self.decoding, self.cores, self.device = decoding, cores, device
        self.views = decoding.views(device)

    @abc.abstractmethod
    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        """Begin to decode images, each of which may have to be waited for; what is returned waits for all."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the workers."""


class Threads(Decoders):
    """Threads of this process: they work when their batch is waited for, between forward passes."""

    def __init__(self, decoding: Decoding, cores: int, device: str) -> None:
        super().__init__(decoding, cores, device)
        if not decoding.late:
            faster(Image.new("RGB", (1, 1)))  # what it needs is loaded now
        # Decoding and resizing release Python's lock.
        self._threads = max(2, cores)
        self._pool = concurrent.futures.ThreadPoolExecutor(self._threads, initializer=one_thread)

    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        def finish() -> Decoded:
            memory = [host_buffer((len(wanted), view.stride), self.device).numpy() for view in self.views]
            found: dict[int, Left] = {}
            to_do = iter(range(len(wanted)))

            def some() -> None:
                for index in to_do:  # of all threads together: a task an image costs a twentieth of it
                    own = [each[index] for each in memory]
                    found[index] = decode(wanted[index](), self.views, own, self.decoding.least_side)

            working = [self._pool.submit(some) for _ in range(self._threads)]
            try:
                concurrent.futures.wait(working, return_when=concurrent.futures.FIRST_EXCEPTION)
            finally:
                collections.deque(to_do, maxlen=0)  # nobody goes on where one has failed
            for each in working:
                each.result()
            return Decoded(memory, [found[index] for index in range(len(wanted))], lambda: None)

        return finish

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
