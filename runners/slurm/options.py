"""The command line of `submit`: its own options, those of sbatch, and after `--` those of predict."""

import argparse
import dataclasses
import re
import tempfile
from collections.abc import Sequence

from beam_zoo.errors import UserError, did_you_mean
from pipelines.command import parse_checked
from pipelines.command_line import Parser, split_command_line
from pipelines.options import Options
from runners import secrets
from runners.beam_options import runner_name
from runners.slurm.commands import output_of, run_slurm
from runners.slurm.gpus import Gpus, take
from runners.slurm.job import COMMANDS, add_flink_options, whole
from runners.slurm.script import WARNING_SECONDS, sbatch_option, seconds_of

FLINK, ARRAY = "flink", "array"
NOTE = (
    "Any other option before the -- is one of sbatch, in its long form; after it come the options of predict."
)
_OURS = {
    **dict.fromkeys(("array", "ntasks", "ntasks-per-node", "ntasks-per-gpu"), "--tasks, with --engine array"),
    **dict.fromkeys(("gpus", "gpus-per-socket", "tres-per-task"), "--gpus_per_node, of each node"),
    "exclusive": "nothing, whole nodes are asked for, or --shared_nodes",
    "oversubscribe": "--shared_nodes",
    **dict.fromkeys(("output", "error", "open-mode"), "nothing: logs are below the output"),
    **dict.fromkeys(("clusters", "cluster-constraint"), "the login node of that cluster"),
    **dict.fromkeys(("chdir", "export", "export-file", "signal", "input"), "nothing: the job needs its own"),
    **dict.fromkeys(
        ("parsable", "quiet", "test-only", "verbose", "wait", "wrap", "version", "usage"), "nothing"
    ),
}
"""Options of sbatch that the scripts set -> what to use instead."""


@dataclasses.dataclass(frozen=True)
class Submission:
    """The parsed command line of `submit`.

    Attributes:
        engine: `flink` or `array`.
        nodes: number of nodes.
        gpus: of each node.
        tasks: number of tasks of an array.
        shared_nodes: whether other jobs may use the same nodes.
        print_only: whether to print the scripts and submit nothing.
        flink: options of `runners.slurm.job`.
        directives: options of sbatch.
        command: `predict` or `represent`.
        options: of that command.
    """

    engine: str
    nodes: int
    gpus: Gpus
    tasks: int
    shared_nodes: bool
    print_only: bool
    flink: dict[str, object]
    directives: dict[str, str | None]
    command: str
    options: Options


def make_parser(parser: Parser) -> Parser:
    """Add the options of `submit`."""
    add = parser.add_argument
    add("--nodes", type=_count, default=1, metavar="N", help="nodes (default 1)")
    add(
        "--gpus_per_node",
        metavar="N|TYPE:N",
        help="GPUs of each; the job then runs with --device=cuda, a worker a GPU. Where a cluster wants it "
        "so: --gres gpu:N, --gres gpu:TYPE:N or --gpus-per-task N",
    )
    add("--time", required=True, type=_time_limit, metavar="HH:MM:SS", help="time limit, as sbatch takes it")
    add(
        "--engine",
        choices=(FLINK, ARRAY),
        help="flink, the default for more than one node, or array: one task per range of snippets",
    )
    add("--flink", metavar="DIR", help="folder of python -m runners.flink install DIR (engine flink)")
    add("--tasks", type=_count, metavar="N", help="tasks of an array (default: one a GPU, or one a node)")
    add(
        "--shared_nodes",
        action="store_true",
        help="let jobs of others use the same nodes: they see that this one is there and share its cores, "
        "memory and TMPDIR, and get into nothing (docs/clusters.md: What listens)",
    )
    add(
        "--command",
        choices=tuple(COMMANDS),
        default="predict",
        help="what the options after -- are of (default predict)",
    )
    add(
        "--print",
        action="store_true",
        dest="print_only",
        help="do all checks, print the batch script and submit nothing",
    )
    add_flink_options(parser)
    return parser


def read(parser: Parser, words: Sequence[str]) -> Submission:
    """Parse and check the command line of `submit`.

    Raises:
        UserError: the first error that is found.
    """
    index = list(words).index("--") if "--" in words else len(words)
    own, theirs = words[:index], words[index + 1 :]
    values, flags, stray = split_command_line(parser, _with_underscores(parser, own))
    if not theirs:
        raise UserError("after the options of the job come -- and those of predict (--help lists the first)")
    if stray:
        long = ": options of sbatch have their long form here" if stray[0].startswith("-") else ""
        raise UserError(f"{stray[0]!r} belongs to no option{long} (--help lists the options)")
    directives = _directives(flags, parser, values["print_only"])
    gpus = take(values["gpus_per_node"], directives)
    directives = {"time": values["time"], **directives}
    engine = values["engine"] or (FLINK if values["nodes"] > 1 else ARRAY)
    settings = {
        name: values[name]
        for name in ("jobmanager_memory", "taskmanager_memory", "registration_seconds", "restarts")
        if values[name] != parser.get_default(name)
    }
    if engine == FLINK:
        if values["tasks"]:
            raise UserError("--tasks is of --engine array: Flink has a TaskManager a GPU, or a node")
        if not values["flink"]:
            raise UserError("--engine flink needs --flink DIR, made by python -m runners.flink install DIR")
    elif settings or values["flink"]:
        name = next(iter(settings), "flink")
        raise UserError(f"--{name} is of --engine flink, and this is --engine array")
    options = _options(values["command"], theirs, engine, gpus.count)
    return Submission(
        engine=engine,
        nodes=values["nodes"],
        gpus=gpus,
        tasks=values["tasks"] or values["nodes"] * max(1, gpus.count),
        shared_nodes=values["shared_nodes"],
        print_only=values["print_only"],
        flink={"flink": values["flink"], **settings} if engine == FLINK else {},
        directives=directives,
        command=values["command"],
        options=options,
    )


def _with_underscores(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words, with underscores for dashes in `submit`'s own options; those of sbatch have dashes."""
    own = {name for action in parser._actions for name in action.option_strings}
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        underscored = f"--{name[2:].replace('-', '_')}"
        found.append(f"{underscored}{equals}{value}" if underscored in own else word)
    return found


def _directives(flags: list[str], parser: argparse.ArgumentParser, print_only: bool) -> dict[str, str | None]:
    """Options of sbatch, without the leading dashes; users may write underscores for the others."""
    found: dict[str, str | None] = {}
    for flag in flags:
        word, equals, value = flag[2:].partition("=")
        name = word.replace("_", "-")
        if name in _OURS:
            raise UserError(f"--{word} is set by submit: use {_OURS[name]}")
        if re.search(r"[\r\n\0]", value):
            raise UserError(f"--{word}: a batch script cannot hold a line break there")
        found[name] = value if equals else None
    if found and not print_only:
        _ask_sbatch(found, parser)
    return found


def _ask_sbatch(directives: dict[str, str | None], parser: argparse.ArgumentParser) -> None:
    """Refuse options that this cluster's sbatch does not know; its help does not list all that it knows."""
    lines = [f"#SBATCH {sbatch_option(name, value)}" for name, value in directives.items()]
    said = _test_only("\n".join(["#!/bin/sh", *lines, ""]))
    if unknown := re.search(r"unrecognized option '--([\w-]+)", said):
        listed = set(re.findall(r"--([a-z][a-z-]*)", output_of("sbatch", "--help")))
        own = {s[2:] for action in parser._actions for s in action.option_strings if s.startswith("--")}
        near = did_you_mean(unknown[1], listed | own)
        raise UserError(f"there is no option --{unknown[1]} of sbatch or of submit{near}")


def _test_only(text: str) -> str:
    """The messages of `sbatch --test-only` for a script."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(text)
        file.flush()
        return run_slurm("sbatch", "--test-only", file.name).stderr


def _options(command: str, words: Sequence[str], engine: str, gpus: int) -> Options:
    """The options of predict or represent for the job."""
    options = parse_checked(command, COMMANDS[command], words)
    secrets.refuse(options.beam, "the job's script")
    runner = runner_name(options.beam)
    given = any(flag.startswith("--runner") for flag in options.beam)
    if given and runner != {FLINK: "FlinkRunner", ARRAY: "DirectRunner"}[engine]:
        raise UserError(f"--runner={runner} does not go with --engine {engine}, which brings its own")
    if engine == FLINK and (bad := [f for f in options.beam if _names_a_cluster(f)]):
        raise UserError(f"{bad[0]} does not go with --engine {engine}, which starts a Flink of its own")
    if options.work.snippets:
        raise UserError(
            "--snippets is given by --engine array to its tasks: leave it out, or submit with sbatch yourself"
        )
    if options.show.print_config or options.show.dry_run:
        what = "print_config" if options.show.print_config else "dry_run"
        raise UserError(
            f"--{what} submits nothing: run python -m pipelines.{command}, or submit with --print"
        )
    device, wanted = options.work.device, "cuda" if gpus else "cpu"
    if device not in ("auto", wanted):
        how = "leave out --gpus_per_node, or --device" if gpus else "--gpus_per_node N asks for GPUs"
        raise UserError(f"--device={device} does not go with {gpus} GPUs a node: {how}")
    flags = [flag for flag in options.beam if not flag.startswith("--runner")]
    return dataclasses.replace(options.replaced(device=wanted), beam=flags)


def _names_a_cluster(flag: str) -> bool:
    names = ("--flink_", "--environment_", "--job_endpoint", "--parallelism", "--sdk_worker", "--direct_")
    return flag.startswith(names)


def _count(text: str) -> int:
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _time_limit(text: str) -> str:
    """Check that a time limit is not too short for Slurm's signal before it."""
    seconds = seconds_of(text)  # None for a text that sbatch will refuse
    if seconds is not None and 0 < seconds <= 2 * WARNING_SECONDS:
        early = f"Slurm's warning comes {WARNING_SECONDS} s before the limit"
        raise argparse.ArgumentTypeError(f"{text} is too short: {early}, give 3 minutes or more")
    return text
