"""Several pipelines on the local runner: in this process, and in others at the same time.

A pipeline of tables holds Python's interpreter lock for most of its time, so threads would not make it
faster. Each process takes the next pipeline when it has finished one.
"""

import contextlib
import ctypes
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

import apache_beam as beam

from beam_zoo.errors import RunFailed, known_error
from beam_zoo.runtime.logs import set_up_logging
from beam_zoo.runtime.python import import_path, python
from beam_zoo.runtime.resources import available_memory, cores
from beam_zoo.runtime.tuning import keep_freed_memory
from runners import direct

Build = Callable[[beam.Pipeline], object]
"""Adds the steps to a pipeline. It is pickled: a function of a module, or a partial of one."""
MEMORY = 1_200_000_000
"""Bytes that a process needs: measured for pipelines of 64 MB of samples, with a margin."""
FEW = 2
"""At most so many pipelines are finished before another process would have started."""
_PR_SET_PDEATHSIG = 1


def run_all(builds: Sequence[Build], flags: list[str]) -> None:
    """Run pipelines to their end, in any order.

    This process runs some of them, and others run the rest, as many as there are cores and memory for.

    Args:
        builds: what adds the steps to each pipeline.
        flags: Beam's options.

    Raises:
        RunFailed: another process was killed, for example for its memory.
        Exception: what a pipeline raised, in this process or in another.
    """
    others = _count(len(builds)) - 1
    waiting: queue.SimpleQueue[Build] = queue.SimpleQueue()
    for build in builds:
        waiting.put(build)
    with contextlib.ExitStack() as stack:
        helpers = [stack.enter_context(_Helper(waiting, flags)) for _ in range(others)]
        for build in _until_empty(waiting):
            direct.run(build, flags)
            for helper in helpers:
                helper.check()
        for helper in helpers:
            helper.wait()


def _count(builds: int) -> int:
    """The number of processes for a number of pipelines, this one included."""
    if builds <= FEW:
        return 1
    by_memory = 1 + available_memory() // MEMORY
    return max(1, min(builds, cores(), by_memory))


def _until_empty(waiting: "queue.SimpleQueue[Build]") -> Iterator[Build]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield waiting.get_nowait()


class _Helper:
    """Another process that runs pipelines, and a thread that sends them to it. Leaving the context kills it.

    Args:
        waiting: the pipelines that no process has taken yet.
        flags: Beam's options.
    """

    def __init__(self, waiting: "queue.SimpleQueue[Build]", flags: list[str]) -> None:
        self._waiting, self._flags = waiting, flags
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "_Helper":
        self._ours, theirs = Pipe()
        environment = {**os.environ, **import_path(), "OMP_NUM_THREADS": "1"}
        words = python("runners.processes", str(theirs.fileno()), str(os.getpid()))
        # A group of its own: Ctrl-C in a terminal is for the command, which ends this process.
        self._process = subprocess.Popen(
            words, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0
        )
        theirs.close()
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()  # what it writes is there as a whole or not at all
        self._process.wait()
        self._thread.join()
        self._ours.close()

    def _work(self) -> None:
        try:
            for build in _until_empty(self._waiting):
                self._ours.send((build, self._flags))
                self._error = self._ours.recv()
                if self._error is not None:
                    return
        except (EOFError, OSError):
            code = self._process.wait()
            self._error = RunFailed(
                f"another process of this command has ended ({_reason(code)}): is there enough memory for "
                "several? OMP_NUM_THREADS=1 uses one; the same command goes on from what is stored"
            )
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        """Raise the process's error, if it has one."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Wait until it has done what it has taken."""
        self._thread.join()
        self.check()


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """Run the pipelines that the command sends, until it sends no more."""
    handle, parent = map(int, sys.argv[1:])
    # A command that is killed cannot end its processes; the kernel does.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    set_up_logging()
    keep_freed_memory()
    connection = Connection(handle)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            build, flags = connection.recv()
            connection.send(_result(build, flags))


def _result(build: Build, flags: list[str]) -> BaseException | None:
    try:
        direct.run(build, flags)
    except Exception as error:
        if (known := known_error(error)) is not None:
            return known
        error.add_note("In another process:\n" + traceback.format_exc())
        try:
            return pickle.loads(pickle.dumps(error))
        except Exception:  # not every exception can be pickled
            return RuntimeError(traceback.format_exc())
    return None


if __name__ == "__main__":
    main()
