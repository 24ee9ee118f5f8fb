"""The runner that Beam's options name: on this machine, or on others."""

import sys
from collections.abc import Callable
from typing import Protocol

import apache_beam as beam

from beam_zoo.errors import UserError
from runners import beam_options, direct
from runners.dataflow import job
from runners.flink import submission


class Runs(Protocol):
    """A function that runs a pipeline and waits for its end."""

    def __call__(self, build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
        """Run what `build` adds to a pipeline, with Beam's options."""


def check(flags: list[str]) -> None:
    """Refuse, before anything is planned, what the runner that the flags name cannot do.

    Args:
        flags: Beam's options.

    Raises:
        UserError: an option of Beam's that it needs, or that it must not have.
    """
    if beam_options.runner_name(flags) == beam_options.FLINK:
        submission.check(flags)


def wrote_template(output: str, flags: list[str], something: bool) -> bool:
    """Whether the flags ask Dataflow for a template instead of a run; then says what to do with it.

    Args:
        output: folder of the output.
        flags: Beam's options.
        something: whether there was anything to do.

    Raises:
        UserError: a template is asked for, and nothing was to do.
    """
    template = job.template(flags)
    if template is None:
        return False
    if not something:
        raise UserError(f"nothing is left to do in {output}: no template is written")
    print(
        f"template {template} predicts into {output}; when it has run, "
        f"python -m pipelines.finish {output} writes the manifest",
        file=sys.stderr,
    )
    return True


def run(build: Callable[[beam.Pipeline], object], flags: list[str]) -> None:
    """Run a pipeline to its end with the runner that the flags name.

    Args:
        build: adds the steps to a pipeline.
        flags: Beam's options.

    Raises:
        UserError: as `check`.
        RunFailed: the runner, or a step, failed.
    """
    check(flags)
    runners = {beam_options.DIRECT: direct.run, beam_options.DATAFLOW: job.run}
    runners.get(beam_options.runner_name(flags), submission.run)(build, flags)
