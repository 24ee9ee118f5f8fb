"""Processes that decode images for a GPU. They share memory with this one, and end when it ends or is killed.

A GPU predicts thousands of images a second. Threads of one Python process decode some hundred, because they
hold the interpreter's lock for a third of the time.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import gc
import mmap
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.reduction
import multiprocessing.resource_tracker
import multiprocessing.spawn
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

import numpy as np

from beam_zoo.errors import RunFailed
from beam_zoo.images import decode as images
from beam_zoo.images.decoders import Decoded, Decoders, Decoding, Left, Wanted, decode
from beam_zoo.runtime import code_cache
from beam_zoo.runtime.device import one_thread
from beam_zoo.runtime.logs import quieten

AT_ONCE = 16
"""Most images of one task, which costs some tenths of a millisecond; small batches have smaller tasks."""
MOST_PROCESSES = 32
_GRACE_S = 5.0
_STARTING = threading.Lock()


class Processes(Decoders):
    """Decodes in other processes, several batches ahead.

    Args:
        count: images of the largest batch.
        batches: number of batches for which memory is allocated.
        decoders: arguments of `Decoders`.

    Raises:
        OSError, EOFError: processes cannot be started here, or cannot share memory.
    """

    def __init__(self, count: int, batches: int, *decoders: Any) -> None:
        super().__init__(*decoders)
        begin_to_import()
        self._strides = [view.stride for view in self.views]
        self._memory = [SharedMemory.new(count * sum(self._strides)) for _ in range(batches)]
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(batches):
            self._free.put(number)
        self._sending = concurrent.futures.ThreadPoolExecutor(1)
        self._processes = min(self.cores, MOST_PROCESSES)
        context = _Context()
        self._pool = concurrent.futures.ProcessPoolExecutor(
            self._processes, context, _begin, (self.decoding, self._memory, context.Lock())
        )
        try:
            # In a thread: Ctrl-C interrupts the main thread, and a process half started prints a stack trace.
            self._sending.submit(self._begin_all).result()
        except BaseException:
            self.close()
            raise

    def _begin_all(self) -> None:
        for _ in range(self._processes):  # the pool starts a process for each task
            self._pool.submit(os.getpid)

    def start(self, wanted: Sequence[Callable[[], Wanted]]) -> Callable[[], Decoded]:
        count = len(wanted)
        at_once = max(1, min(AT_ONCE, count // self._processes))

        def send() -> tuple[int, list[concurrent.futures.Future[list[Left]]]]:
            number = self._free.get()
            sent = []
            try:
                for first in range(0, count, at_once):
                    some = [get() for get in wanted[first : first + at_once]]
                    sent.append(self._pool.submit(_decode_some, some, first, count, number))
            except BaseException:
                self._free.put(number)  # processes that still write there do no harm: the step fails
                raise
            return number, sent

        sending = self._sending.submit(send)

        def finish() -> Decoded:
            try:
                number, sent = sending.result()
                try:
                    left = [one for future in sent for one in future.result()]
                except BaseException:
                    self._free.put(number)
                    raise
            except concurrent.futures.process.BrokenProcessPool:
                raise RunFailed(
                    "a process that decodes images has ended: is there enough memory for "
                    f"{self._processes} of them? OMP_NUM_THREADS says how many cores are used"
                ) from None
            parts = self._memory[number].parts(count, self._strides)
            return Decoded(parts, left, lambda: self._free.put(number))

        return finish

    def close(self) -> None:
        self._sending.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)
        for memory in self._memory:
            memory.close()
        self._memory.clear()


def begin_to_import() -> None:
    """Start the fork server, which imports the modules that decoding processes need; does not wait for it.

    Raises:
        OSError: it cannot be started, for example because TMPDIR is too long for the path of a socket.
        UserError: other users can write to the cache of compiled code.
    """
    with contextlib.suppress(OSError, RuntimeError):  # there is no cache then
        code_cache.folder(code_cache.NUMBA)  # checked here: the fork server would print a stack trace
    _Context().set_forkserver_preload(
        [__name__, "beam_zoo.images.kernels.compiled_image", "galaxy_datasets.transforms"]
    )
    # Ctrl-C in a terminal goes to all processes: the fork server would print a stack trace while it imports.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process(ForkServerProcess):
    """A process that does not import the program's main module, as multiprocessing does by default.

    On Dataflow that would import Beam. A script without `if __name__ == "__main__"` would be run again.
    """

    @staticmethod
    def _Popen(process: Any) -> Any:
        with _STARTING:
            found = multiprocessing.spawn.get_preparation_data

            def without_main(name: str) -> dict[str, Any]:
                data = found(name)
                return {key: data[key] for key in data if not key.startswith("init_main_from")}

            multiprocessing.spawn.get_preparation_data = without_main
            try:
                return ForkServerProcess._Popen(process)
            finally:
                multiprocessing.spawn.get_preparation_data = found


class _Context(ForkServerContext):
    Process = _Process


class SharedMemory:
    """Anonymous memory (a memfd) that can be sent to processes; a page is allocated at its first write."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._map = mmap.mmap(handle, 0)

    @classmethod
    def new(cls, size: int) -> "SharedMemory":
        """Allocate memory of `size` bytes, all zero."""
        handle = os.memfd_create("beam-zoo-images")
        os.ftruncate(handle, max(1, size))
        return cls(handle)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (multiprocessing.reduction.DupFd(self._handle),)

    def close(self) -> None:
        """Close the file descriptor; the memory is freed with the last array in it."""
        os.close(self._handle)

    def parts(self, count: int, strides: list[int]) -> list[np.ndarray]:
        """An array for every stride: uint8, shape (count, stride)."""
        found, start = [], 0
        for stride in strides:
            found.append(np.frombuffer(self._map, np.uint8, count * stride, start).reshape(count, stride))
            start += count * stride
        return found


def _received(handle: Any) -> SharedMemory:
    return SharedMemory(handle.detach())


_here: dict[str, Any] = {}
"""State of a decoding process: its views and shared memory."""


def _begin(decoding: Decoding, memory: list[SharedMemory], one_large_image: Any) -> None:
    gc.freeze()  # the collector does not touch imported modules: their pages stay shared
    # Signals to the whole process group are for the command, which then ends these processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _end_later)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    one_thread()
    quieten()
    images.ONE_LARGE_IMAGE = one_large_image
    _here.update(views=decoding.views("cpu"), side=decoding.least_side, memory=memory)


def _end_later(*_: Any) -> None:
    timer = threading.Timer(_GRACE_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _decode_some(wanted: Sequence[Wanted], first: int, count: int, number: int) -> list[Left]:
    views = _here["views"]
    parts = _here["memory"][number].parts(count, [view.stride for view in views])
    return [
        decode(one, views, [part[index] for part in parts], _here["side"])
        for index, one in enumerate(wanted, first)
    ]
