"""Several pipelines on the local runner: here, and in other processes at the same time.

A pipeline of tables holds Python's interpreter lock for most of its time, so that threads gain nothing. Each process takes the
next pipeline when it has done one.
"""

import contextlib
import ctypes
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
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

LOGGER = logging.getLogger("beam_zoo")
Build = Callable[[beam.Pipeline], object]
"""Adds the steps to a pipeline; it travels to other processes, so it is a module's function or a partial of one."""
MEMORY = 1_200_000_000
"""Bytes that a process needs: measured for tables of 64 MB of samples at a time, with a margin."""
FEW = 2
"""So few pipelines are done before another process has started."""
_PR_SET_PDEATHSIG = 1


def run_all(builds: Sequence[Build], flags: list[str]) -> None:
    """Run pipelines to their end, in any order.

    This process runs some of them. Others run in as many processes more as there are cores and memory for.

    Args:
        builds: what adds the steps to each pipeline.
        flags: Beam's options.

    Raises:
        UserError, StorageFull: a step's own, from whatever process.
        RunFailed: a process was killed.
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
    """How many processes work on so many pipelines, this one among them."""
    if builds <= FEW:
        return 1
    by_memory = 1 + available_memory() // MEMORY
    return max(1, min(builds, cores(), by_memory))


def _until_empty(waiting: "queue.SimpleQueue[Build]") -> Iterator[Build]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield waiting.get_nowait()


class _Helper:
    """Another process that runs pipelines, and the thread that hands them to it; killed at the end of the context.

    Args:
        waiting: the pipelines that nobody has taken.
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
                if (error := self._ours.recv()) is not None:
                    raise error
        except (EOFError, OSError):
            code = self._process.wait()
            self._error = RunFailed(
                f"a process that builds tables has ended ({_reason(code)}): is there enough memory for several? "
                "OMP_NUM_THREADS=1 uses one; the same command goes on from what is stored"
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
    """Run pipelines as they come, until there are no more."""
    handle, parent = map(int, sys.argv[1:])
    # Nobody is left to hear of it where the command was killed.
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
        LOGGER.debug("a pipeline failed", exc_info=True)
        return known_error(error) or RuntimeError(f"{type(error).__name__}: {error}")
    return None


if __name__ == "__main__":
    main()
