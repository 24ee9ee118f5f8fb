"""Beam's local runner, in this process: it opens no port and starts no other process."""

import functools
from collections.abc import Callable

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_zoo.runtime.tuning import freeze_modules


def run(build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Run a pipeline to its end.

    Beam's DirectRunner first tries another runner, whose binary it downloads without a time-out. This is the
    runner that it would come to in the end, at once.

    Args:
        build: adds the steps to a pipeline.
        flags: Beam's options.
    """
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    _freeze_modules_once()
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(flags))
    build(pipeline)
    pipeline.run().wait_until_finish()


@functools.cache
def _freeze_modules_once() -> None:
    """Once a process: what a pipeline leaves behind is to be collected."""
    freeze_modules()
