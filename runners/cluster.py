"""Any runner but the local one, as Beam itself starts it."""

from collections.abc import Callable
from typing import Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_zoo.errors import RunFailed, known_error
from runners import beam_options
from runners.dataflow import job
from runners.traces import summary


class Runs(Protocol):
    """What runs a graph on a cluster, to its end."""

    def __call__(self, build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
        """Run what `build` adds to a pipeline, with Beam's options."""


def run(build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Run a pipeline to its end with the runner that the flags name.

    Args:
        build: adds the steps to a pipeline.
        flags: Beam's options.

    Raises:
        RunFailed: the runner, or a step, failed.
    """
    if beam_options.runner_name(flags) == beam_options.DATAFLOW:
        job.run(build, flags)
        return
    pipeline = beam.Pipeline(options=PipelineOptions(flags))
    build(pipeline)
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        if known_error(error) is not None:
            raise
        raise RunFailed(f"the runner failed: {summary(str(error))}; the same command goes on") from error
