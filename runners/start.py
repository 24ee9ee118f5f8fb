"""Run a pipeline on the runner that Beam's options name."""

from collections.abc import Callable

import apache_beam as beam

from runners import beam_options, cluster, direct


def run(build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Run a pipeline to its end.

    Args:
        build: adds the steps to a pipeline.
        flags: Beam's options.

    Raises:
        RunFailed: the runner, or a step, failed.
    """
    here = beam_options.runner_name(flags) == beam_options.DIRECT
    (direct.run if here else cluster.run)(build, flags)
