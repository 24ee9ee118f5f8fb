"""Where images become pixels: in threads of this process on a CPU; beside a GPU, in processes of their own.

A GPU takes thousands of images a second, and one Python interpreter decodes some hundred: its lock is held for a third of
the time that an image needs. The processes share memory with this one, and end with it, however it ends.
"""

import abc
import concurrent.futures
import concurrent.futures.process
import dataclasses
import mmap
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.forkserver
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from beam_zoo import images
from beam_zoo.batch_views import BatchViews, Raw, ViewTask, batch_views
from beam_zoo.device import host_buffer, one_thread, out_of_memory
from beam_zoo.errors import RunFailed, UserError, one_line
from beam_zoo.records import Failure

AHEAD = {"cpu": False, "cuda": True}
"""Whether images are decoded, and views made, while another batch is predicted.

On a CPU the encoder has all cores already, and its threads wait for each other: a core lent to a decoder costs the time of all.
"""
AT_ONCE = 16
"""Images of one message to a process: each message costs some tenths of a millisecond."""
MOST_PROCESSES = 32
_GRACE_S = 5.0
Left = Failure | list[Raw | None]
"""What an image leaves: for every view task what waits in memory, or why there is nothing."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An image to decode.

    Attributes:
        offset: of its galaxy in the snippet.
        source: its path, or its bytes, or why there are none.
        keys: for every view task, where the random draws of each view start, or None.
    """

    offset: int
    source: str | bytes | Failure
    keys: list[list[int | None]]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What is done with every image; it travels to other processes.

    Attributes:
        tasks: views that are needed.
        fast, late: as of `batch_views`.
        least_side: as of `images.decode`.
    """

    tasks: list[ViewTask]
    fast: bool
    late: bool
    least_side: int | None

    def views(self, device: str) -> list[BatchViews]:
        """The views, made on a device."""
        return batch_views(self.tasks, fast=self.fast, late=self.late, device=device)


def decode(
    wanted: Wanted, views: Sequence[BatchViews], memory: Sequence[np.ndarray], side: int | None
) -> Left:
    """Read an image, and make its views or keep it for them; every error of one image is its failure.

    Args:
        wanted: the image.
        views: of every task.
        memory: of every task, the image's own.
        side: as of `images.decode`.
    """
    source = wanted.source
    if isinstance(source, Failure):
        return source
    try:
        data = source if isinstance(source, bytes) else images.read_bytes(source)
        image = images.decode(data, side)
    except images.ImageError as error:
        return Failure(wanted.offset, "image", one_line(error), error.may_pass)
    try:
        filled = zip(views, memory, wanted.keys, strict=True)
        return [view.fill(own, image, keys) for view, own, keys in filled]
    except Exception as error:
        return view_failure(wanted.offset, error)


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
        # Decoding and resizing release Python's lock.
        self._pool = concurrent.futures.ThreadPoolExecutor(max(2, cores), initializer=one_thread)

    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        def finish() -> Decoded:
            memory = [host_buffer((len(wanted), view.stride), self.device).numpy() for view in self.views]

            def one(index: int) -> Left:
                own = [some[index] for some in memory]
                return decode(wanted[index](), self.views, own, self.decoding.least_side)

            return Decoded(memory, list(self._pool.map(one, range(len(wanted)))), lambda: None)

        return finish

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class Processes(Decoders):
    """Processes that work ahead, on as many batches as there is memory for.

    Args:
        images: of the largest batch.
        batches: how many.
        others: as of `Decoders`.
    """

    def __init__(self, images: int, batches: int, *others: Any) -> None:
        super().__init__(*others)
        context = begin_to_import()
        self._strides = [view.stride for view in self.views]
        self._memory = [_Memory.new(images * sum(self._strides)) for _ in range(batches)]
        self._free: queue.SimpleQueue[_Memory | None] = queue.SimpleQueue()
        for memory in self._memory:
            self._free.put(memory)
        self._sending = concurrent.futures.ThreadPoolExecutor(1)
        self._count = min(self.cores, MOST_PROCESSES)
        self._pool = concurrent.futures.ProcessPoolExecutor(
            self._count,
            context,
            initializer=_begin,
            initargs=(self.decoding, context.Lock()),
        )
        for _ in range(self._count):  # a process begins when there is something to do
            self._pool.submit(os.getpid)

    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        count = len(wanted)

        def send() -> tuple[_Memory, list[concurrent.futures.Future[list[Left]]]]:
            memory = self._free.get()
            if memory is None:
                raise RunFailed("no more images are decoded: the step has ended")
            sent = []
            try:
                for first in range(0, count, AT_ONCE):
                    some = [get() for get in wanted[first : first + AT_ONCE]]
                    sent.append(self._pool.submit(_decode_some, some, first, count, memory.name))
            except BaseException:
                concurrent.futures.wait(sent)
                self._free.put(memory)
                raise
            return memory, sent

        sending = self._sending.submit(send)

        def finish() -> Decoded:
            memory, sent = sending.result()
            concurrent.futures.wait(sent)
            try:
                left = [one for future in sent for one in future.result()]
            except concurrent.futures.process.BrokenProcessPool:
                raise RunFailed(
                    f"a process that decodes images was killed: if there is not enough memory for {self._count} of "
                    "them, set OMP_NUM_THREADS to a smaller number"
                ) from None
            return Decoded(memory.parts(count, self._strides), left, lambda: self._free.put(memory))

        return finish

    def close(self) -> None:
        self._free.put(None)
        self._sending.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)
        for memory in self._memory:
            memory.close()


def begin_to_import() -> multiprocessing.context.ForkServerContext:
    """Start the process whose copies decode: what they need is imported once, while this process goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "galaxy_datasets.transforms"])
    multiprocessing.forkserver.ensure_running()
    return context


class _Memory:
    """Memory that processes share, without a name in the file system; only what is written to takes any.

    Attributes:
        name: by which a process of the same user finds it.
    """

    def __init__(self, handle: int, name: tuple[int, int]) -> None:
        self.name, self._handle = name, handle
        self._map = mmap.mmap(handle, 0)

    @classmethod
    def new(cls, size: int) -> "_Memory":
        handle = os.memfd_create("beam-zoo-images")
        os.ftruncate(handle, max(1, size))
        return cls(handle, (os.getpid(), handle))

    @classmethod
    def of(cls, name: tuple[int, int]) -> "_Memory":
        process, handle = name
        return cls(os.open(f"/proc/{process}/fd/{handle}", os.O_RDWR), name)

    def close(self) -> None:
        """No other process finds it from now on; it ends with its last array."""
        os.close(self._handle)

    def parts(self, count: int, strides: list[int]) -> list[np.ndarray]:
        """For every stride the memory of so many images: uint8, shape (image, stride)."""
        found, start = [], 0
        for stride in strides:
            found.append(np.frombuffer(self._map, np.uint8, count * stride, start).reshape(count, stride))
            start += count * stride
        return found


_here: dict[str, Any] = {}
"""Of a decoding process: what it does, and the memory that it knows."""


def _begin(decoding: Decoding, one_large_image: Any) -> None:
    # Who interrupts or ends a whole job means its command, which then ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(_GRACE_S, os._exit, (1,)).start())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    one_thread()
    images.ONE_LARGE_IMAGE = one_large_image
    _here.update(views=decoding.views("cpu"), side=decoding.least_side, memory={})


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _decode_some(wanted: Sequence[Wanted], first: int, count: int, name: tuple[int, int]) -> list[Left]:
    if name not in _here["memory"]:
        _here["memory"][name] = _Memory.of(name)
    views = _here["views"]
    parts = _here["memory"][name].parts(count, [view.stride for view in views])

    def each() -> Iterator[Left]:
        for index, one in enumerate(wanted, first):
            yield decode(one, views, [part[index] for part in parts], _here["side"])

    return list(each())
