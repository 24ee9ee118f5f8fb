"""Checks of Beam's own options, before a pipeline is built."""

import argparse
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

from beam_zoo.errors import UserError, did_you_mean
from runners import secrets

DIRECT, FLINK, DATAFLOW = "DirectRunner", "FlinkRunner", "DataflowRunner"
RUNNERS = (DIRECT, FLINK, DATAFLOW)
OPEN_RUNNERS = (
    "PortableRunner",
    "PrismRunner",
    "SparkRunner",
    "SwitchingDirectRunner",
    "BundleBasedDirectRunner",
)
"""Runners of Beam that start, or ask for, services without a password, on this machine."""
IN_MEMORY = "in_memory"
ENVIRONMENTS = ("DOCKER", "PROCESS", "EXTERNAL")


class _Parser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{secrets.in_text(message)} (an option of Apache Beam)")


def check(flags: list[str], others: list[str]) -> None:
    """Refuse unknown options, values that Beam would refuse, and modes that listen on open ports.

    Args:
        flags: such as `--runner=FlinkRunner`.
        others: names of the command's own options, for the nearest valid choice.

    Raises:
        UserError: naming the nearest valid option.
    """
    parser = _parser()
    known = [string for action in parser._actions for string in action.option_strings]
    for flag in flags:
        name = flag.partition("=")[0]
        if name not in known:
            valid = [*known, *(f"--{other}" for other in others)]
            raise UserError(f"there is no option {name}{did_you_mean(name, valid)}")
    given = parser.parse_args(flags)
    _check_one_process(given)
    environment = given.environment_type
    if environment == "LOOPBACK":
        raise UserError(
            "--environment_type=LOOPBACK runs whatever any user of this machine requests: "
            "use PROCESS or DOCKER"
        )
    if environment and not environment.startswith("beam:env:") and environment not in ENVIRONMENTS:
        raise UserError(
            f"--environment_type cannot be {environment!r}{did_you_mean(environment, ENVIRONMENTS)}"
        )
    if (runner := runner_name(flags)) in OPEN_RUNNERS:
        valid_runners = ", ".join(RUNNERS)
        raise UserError(
            f"--runner={runner} uses services that anybody can connect to: choose from {valid_runners}"
        )
    if runner not in RUNNERS:
        raise UserError(f"there is no runner {runner!r}{did_you_mean(runner, RUNNERS)}")
    if runner != DIRECT:
        secrets.refuse(flags, f"--runner={runner}")


def _check_one_process(given: argparse.Namespace) -> None:
    """Refuse the modes in which Beam's local runner listens on ports without a password.

    This holds for every runner, because tables may be built on the local runner afterwards.
    """
    mode, workers = given.direct_running_mode, given.direct_num_workers
    if mode != IN_MEMORY:
        wrong = f"--direct_running_mode={mode} would listen on the network, without a password"
    elif workers != 1:
        wrong = f"--direct_num_workers={workers} would only start threads that wait for each other"
    else:
        return
    raise UserError(
        f"{wrong}: leave it out, for the local runner is one process, in which torch uses all cores "
        "(--compile makes it faster); several machines or GPUs are for python -m runners.slurm submit"
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    waiting = [PipelineOptions]
    seen = set()
    while waiting:
        cls = waiting.pop()
        if cls in seen:
            continue
        seen.add(cls)
        waiting += cls.__subclasses__()
        cls._add_argparse_args(parser)
    return parser


def runner_name(flags: list[str]) -> str:
    """The runner that the flags ask for."""
    found = [flag.partition("=")[2] for flag in flags if flag.partition("=")[0] == "--runner"]
    return found[-1] if found else DIRECT
