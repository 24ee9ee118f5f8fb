"""Beam's local runner: in this process, or in several with --direct_running_mode=multi_processing."""

import contextlib
import functools
import gc
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from beam_zoo.errors import RunFailed, known_error

MULTI_PROCESSING = "multi_processing"

View = TypeVar("View", bound=PipelineOptions)


def run(build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Run a pipeline to its end.

    Beam's DirectRunner first tries another runner, whose binary it downloads without a time-out. This is the
    runner that it would come to in the end, at once.

    Args:
        build: adds the steps to a pipeline.
        flags: Beam's options.

    Raises:
        RunFailed: a worker process died.
    """
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    _leave_modules_alone()
    environment = None
    if processes(flags) > 1:
        # With all cores each, several processes are slower than one. Theirs alone: this process goes on with its own.
        number = os.environ.get("OMP_NUM_THREADS", str(threads(flags)))
        command = f"OMP_NUM_THREADS={shlex.quote(number)} {shlex.quote(sys.executable)} -m runners.worker"  # for a shell
        environment = SubprocessSDKEnvironment.from_command_string(command_string=command)
        flags = [flag for flag in flags if not flag.startswith("--direct_running_mode")]
    if not any(flag.startswith("--default_sdk_harness_log_level") for flag in flags):
        flags = [*flags, "--default_sdk_harness_log_level=WARNING"]
    pipeline = beam.Pipeline(
        runner=FnApiRunner(default_environment=environment), options=ViewedOptions(flags)
    )
    build(pipeline)
    with _deaths_of_workers() as deaths:
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:
            if deaths and known_error(error) is None:
                raise RunFailed(f"{deaths[0]}: the same command goes on with what is left to do") from error
            raise


class ViewedOptions(PipelineOptions):
    """Beam's options, each view of them made once: Beam asks for a hundred in a pipeline, and parses all flags for each."""

    def view_as(self, cls: type[View]) -> View:
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]

    def __getstate__(self) -> dict[str, Any]:
        # A copy has its own, of what it holds: Beam leaves out what must not travel.
        return {name: value for name, value in super().__getstate__().items() if name != "_views"}


@functools.cache
def _leave_modules_alone() -> None:
    """What was imported stays: the collector need not look at it again for every few galaxies.

    Once a process: what a pipeline leaves behind must not stay with it.
    """
    gc.freeze()


@contextlib.contextmanager
def _deaths_of_workers() -> Iterator[list[str]]:
    """What the threads that watch worker processes say, which Python would print with a stack trace."""
    deaths: list[str] = []
    before = threading.excepthook

    def note(death: threading.ExceptHookArgs) -> None:
        if "Worker subprocess exited" in str(death.exc_value):
            deaths.append(str(death.exc_value).lower().replace("subprocess", "process"))
        else:
            before(death)

    threading.excepthook = note
    try:
        yield deaths
    finally:
        threading.excepthook = before


def processes(flags: list[str]) -> int:
    """Number of worker processes."""
    options = PipelineOptions(flags).view_as(DirectOptions)
    if options.direct_running_mode != MULTI_PROCESSING:
        return 1
    return options.direct_num_workers or os.cpu_count() or 1


def threads(flags: list[str]) -> int | None:
    """torch's threads of a worker process: None leaves the choice to torch, in one process."""
    workers = processes(flags)
    return None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
