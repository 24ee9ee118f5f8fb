"""Beam's local runner: in this process, or in several with --direct_running_mode=multi_processing."""

import os
from collections.abc import Callable

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions


def run(build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Run a pipeline to its end.

    Beam's DirectRunner first tries another runner, whose binary it downloads without a time-out. This is the
    runner that it would come to in the end, at once.

    Args:
        build: adds the steps to a pipeline.
        flags: Beam's options.
    """
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    if not any(flag.startswith("--default_sdk_harness_log_level") for flag in flags):
        flags = [*flags, "--default_sdk_harness_log_level=WARNING"]
    options = PipelineOptions(flags)
    if processes(flags) > 1:
        # Workers inherit this; with all cores each, several processes are slower than one.
        os.environ.setdefault("OMP_NUM_THREADS", str(threads(flags)))
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=options)
    build(pipeline)
    pipeline.run().wait_until_finish()


def processes(flags: list[str]) -> int:
    """Number of worker processes."""
    options = PipelineOptions(flags).view_as(DirectOptions)
    if options.direct_running_mode != "multi_processing":
        return 1
    return options.direct_num_workers or os.cpu_count() or 1


def threads(flags: list[str]) -> int | None:
    """torch's threads of a worker process: None leaves the choice to torch, in one process."""
    workers = processes(flags)
    return None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
