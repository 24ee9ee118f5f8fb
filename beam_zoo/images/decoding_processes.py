"""Processes that decode beside a GPU: they share memory with this one, and end with it, however it ends.

A GPU takes thousands of images a second, and one Python interpreter decodes some hundred: its lock is held for a third of
the time that an image needs.
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
from beam_zoo.runtime import code_cache as kept_code
from beam_zoo.runtime.device import one_thread
from beam_zoo.runtime.logs import quieten

AT_ONCE = 16
"""Most images of one message to a process, which costs some tenths of a millisecond; fewer where they keep more of them busy."""
MOST_PROCESSES = 32
_GRACE_S = 5.0
_STARTING = threading.Lock()


class Processes(Decoders):
    """Processes that work ahead, on as many batches as there is memory for.

    Args:
        count: images of the largest batch.
        batches: how many may be decoded and not yet collected.
        others: as of `Decoders`.

    Raises:
        OSError, EOFError: this machine does not let processes be started, or share memory.
    """

    def __init__(self, count: int, batches: int, *others: Any) -> None:
        super().__init__(*others)
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
            # In a thread, which no signal interrupts in the middle: a process that had only begun would complain at length.
            self._sending.submit(self._begin_all).result()
        except BaseException:
            self.close()
            raise

    def _begin_all(self) -> None:
        for _ in range(self._processes):  # a process begins when there is something to do
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
                self._free.put(number)  # whoever still writes there writes for a step that ends now
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
                    f"a process that decodes images has ended: is there enough memory for {self._processes} of them? "
                    "OMP_NUM_THREADS says how many cores are used"
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
    """Start the process whose copies decode: what they need is imported there once, while this process goes on.

    Raises:
        OSError: it cannot be started here, for example where the path of the temporary folder is too long for a socket.
        UserError: others could put code where it is kept; that process could not say so in a line.
    """
    with contextlib.suppress(OSError, RuntimeError):  # nothing is kept then
        kept_code.folder(kept_code.NUMBA)
    _Context().set_forkserver_preload(
        [__name__, "beam_zoo.images.kernels.compiled_image", "galaxy_datasets.transforms"]
    )
    # Ctrl-C in a terminal means all processes, and this one would print a stack trace until it has imported everything.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process(ForkServerProcess):
    """A process that does not run the program's main module again.

    It needs nothing of that: on Dataflow it would import Beam, and a script without a guard would be run as a whole.
    """

    @staticmethod
    def _Popen(process: Any) -> Any:
        with _STARTING:
            found = multiprocessing.spawn.get_preparation_data

            def without_main(name: str) -> dict[str, Any]:
                return {
                    key: value for key, value in found(name).items() if not key.startswith("init_main_from")
                }

            multiprocessing.spawn.get_preparation_data = without_main
            try:
                return ForkServerProcess._Popen(process)
            finally:
                multiprocessing.spawn.get_preparation_data = found


class _Context(ForkServerContext):
    Process = _Process


class SharedMemory:
    """Memory without a name, for processes that this one starts; only what is written to takes any."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._map = mmap.mmap(handle, 0)

    @classmethod
    def new(cls, size: int) -> "SharedMemory":
        """Memory of so many bytes, all zero."""
        handle = os.memfd_create("beam-zoo-images")
        os.ftruncate(handle, max(1, size))
        return cls(handle)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (multiprocessing.reduction.DupFd(self._handle),)

    def close(self) -> None:
        """No further process gets it; it ends with its last array."""
        os.close(self._handle)

    def parts(self, count: int, strides: list[int]) -> list[np.ndarray]:
        """For every stride the memory of so many images: uint8, shape (image, stride)."""
        found, start = [], 0
        for stride in strides:
            found.append(np.frombuffer(self._map, np.uint8, count * stride, start).reshape(count, stride))
            start += count * stride
        return found


def _received(handle: Any) -> SharedMemory:
    return SharedMemory(handle.detach())


_here: dict[str, Any] = {}
"""Of a decoding process: what it does, and the memory that it shares."""


def _begin(decoding: Decoding, memory: list[SharedMemory], one_large_image: Any) -> None:
    gc.freeze()  # what was imported stays shared between the processes
    # Who interrupts or ends a whole job means its command, which then ends these.
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
