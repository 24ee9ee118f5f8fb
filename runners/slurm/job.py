"""The program of a Slurm job: it starts a Flink cluster for this job and runs the pipeline.

    python -m runners.slurm.job --flink DIR -- predict --catalogue ...

The batch script of `python -m runners.slurm submit` runs it on the first node.
"""

import argparse
import contextlib
import gc
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from beam_zoo.errors import UserError
from pipelines import command, predict, represent
from pipelines.command_line import Parser
from pipelines.options import Options
from runners.best_effort_output import use_best_effort_output
from runners.flink import install
from runners.flink.job_manager import LOOPBACK, Ports
from runners.slurm import cores, records
from runners.slurm.commands import run_slurm
from runners.slurm.nodes import Allocation, SlurmNodes
from runners.slurm.script import seconds_of

COMMANDS = {"predict": predict.DESCRIPTION, "represent": represent.DESCRIPTION}
FIRST_PORT, PORT_PAIRS = 20_000, 6_000  # below the range of ephemeral ports
STRIDE, ATTEMPTS = 1_009, 20
SECONDS_BEFORE_END = 90
PAST_THE_END = "INVALID"
"""The time left, in squeue, of a job that is past its time limit."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the pipeline's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return command.guarded(lambda: _main(words))


def _main(words: list[str]) -> int:
    index = words.index("--") if "--" in words else len(words)
    own, theirs = words[:index], words[index + 1 :]
    with _why_it_was_stopped(os.environ.get("SLURM_JOB_ID", "")):
        return _run(vars(make_parser().parse_args(own)), theirs)


def _run(settings: dict[str, Any], theirs: list[str]) -> int:
    options = parse_command(theirs, ["--runner=FlinkRunner"])
    from runners.flink.application import Application, Settings

    allocation = Allocation.here()
    gpus = settings.pop("gpus_per_node")
    nodes = SlurmNodes(allocation, gpus)
    if said := cores.note(max(1, gpus)):
        print(said, file=sys.stderr, flush=True)
    folder = records.own_folder(str(options.work.output), allocation.job)
    flink = install.check(settings.pop("flink"))
    application = Application(
        Settings(flink, folder, ports(allocation.job, nodes.address), **settings), nodes
    )
    with _scratch(), application:
        # Imports that take seconds, while TaskManagers start.
        from pipelines import execution, prepare  # noqa: F401

        gc.freeze()  # otherwise the collector takes seconds at the end of the process
        predict.execute(theirs[0], options, application.run)
    return 0


def make_parser() -> Parser:
    """The parser of this command."""
    parser = Parser(prog="python -m runners.slurm.job", description=__doc__, epilog=None)
    parser.add_argument("--flink", required=True)
    parser.add_argument("--gpus_per_node", type=int, default=0)
    add_flink_options(parser)
    return parser


def add_flink_options(parser: Parser) -> None:
    """Add the options of Flink, which `submit` has too."""
    parser.add_argument(
        "--jobmanager_memory",
        type=_memory,
        default="1024m",
        metavar="SIZE",
        help="of the JobManager's JVM (default %(default)s)",
    )
    parser.add_argument(
        "--taskmanager_memory",
        type=_memory,
        default="1536m",
        metavar="SIZE",
        help="of a TaskManager's JVM; its Python worker is beside it (default %(default)s)",
    )
    parser.add_argument(
        "--registration_seconds",
        type=_positive,
        default=300,
        metavar="N",
        help="how long to wait for all TaskManagers (default %(default)s)",
    )
    parser.add_argument(
        "--restarts",
        type=whole,
        default=10,
        metavar="N",
        help="how many losses of a TaskManager or worker are made good (default %(default)s)",
    )


def _positive(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not float(text) > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def whole(text: str) -> int:
    """Parse a whole number that is not negative."""
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _memory(text: str) -> str:
    if not re.fullmatch(r"\d+ ?(m|mb|g|gb)", text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1536m or 2g")
    return text


def parse_command(words: list[str], flags: list[str]) -> Options:
    """The options of `predict` or `represent`.

    Args:
        words: the command's name, and its options.
        flags: Beam's options that the job adds.
    """
    if not words or words[0] not in COMMANDS:
        raise UserError(f"after -- comes {' or '.join(COMMANDS)}, not {words[0] if words else 'nothing'}")
    return command.parse_checked(words[0], COMMANDS[words[0]], [*words[1:], *flags])


def ports(job: str, address: str) -> Ports:
    """Two free ports, derived from the job's id, so that jobs on one node rarely try the same.

    Args:
        job: its id.
        address: IP address of this host for other nodes.

    Raises:
        UserError: no free ports were found.
    """
    number = int(re.sub(r"\D", "", job))
    for attempt in range(ATTEMPTS):
        first = FIRST_PORT + 2 * ((number + attempt * STRIDE) % PORT_PAIRS)
        if _is_free(address, first) and _is_free(LOOPBACK, first + 1):
            return Ports(first, first + 1)
    raise UserError(
        f"{os.uname().nodename} has no free ports for Flink; the last that were tried: {first}, {first + 1}"
    )


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """A context with a folder for temporary files, which is removed at its end: Beam leaves some."""
    before = tempfile.tempdir
    folder = tempfile.TemporaryDirectory(prefix="beam-zoo-driver-", ignore_cleanup_errors=True)
    with folder as tempfile.tempdir:
        yield
    tempfile.tempdir = before


@contextlib.contextmanager
def _why_it_was_stopped(job: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        left = _seconds_left(job)
        near = left is not None and left < SECONDS_BEFORE_END
        what = "the time limit is near" if near else "the job was cancelled"
        print(f"{what}: submit the same command again to go on", file=sys.stderr)
        raise


def _seconds_left(job: str) -> int | None:
    done = run_slurm("squeue", "--noheader", "--format=%L", f"--jobs={job}")
    text = done.stdout.strip()
    return 0 if text == PAST_THE_END else seconds_of(text)


if __name__ == "__main__":
    use_best_effort_output()  # the log may be on the disk that is full
    sys.exit(main())
