"""Build the tables of several runs together: a model added later, more passes, a second machine's half.

    python -m pipelines.aggregate --samples OUT1 OUT2 --output OUT3

joins the stored samples of the runs by galaxy id, and writes OUT3/friendly, OUT3/advanced, OUT3/failures (Parquet)
and OUT3/manifest.json. The runs are only read.
"""

import sys
from typing import Any

from beam_zoo.errors import UserError
from beam_zoo.runtime.tuning import keep_freed_memory
from beam_zoo.storage.files import absolute, is_remote
from pipelines import command
from pipelines.command_line import Parser

DESCRIPTION = "Build the tables of several runs together, from their stored samples."


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.guarded(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m pipelines.aggregate", description=DESCRIPTION)
    parser.add_argument(
        "--samples",
        nargs="+",
        action="extend",
        metavar="OUT",
        help="outputs of predict; their order is the tables'",
    )
    parser.add_argument("--output", help="folder of the new tables")
    parser.add_argument(
        "--carry",
        nargs="*",
        action="extend",
        metavar="COLUMN",
        help="columns that the tables carry along (default: all that a run carries)",
    )
    parser.add_argument(
        "--incomplete",
        default="refuse",
        metavar="refuse|drop|keep",
        help="galaxies that are not in all runs that have a member or pass: refuse them (default), drop them "
        "into failures/, or keep them with the samples that they have",
    )
    parser.add_argument(
        "--interval",
        default="median",
        metavar="median|mixture",
        help="90%% interval: the medians of the samples' bounds, as zoobot has it (default), or that of their mixture",
    )
    parser.add_argument(
        "--max_failure_fraction",
        type=float,
        default=0.05,
        help="exit with code 3 if more of the rows fail (default 0.05)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="build the tables of an earlier aggregate anew"
    )
    values, flags = command.parse_simple(parser, argv)
    values = checked(values)
    keep_freed_memory()
    from pipelines.merge import execute  # Beam takes seconds to import: not for --help

    return execute(values, flags)


def checked(values: dict[str, Any]) -> dict[str, Any]:
    """The command's options, with the output's folder as an absolute path.

    Raises:
        UserError: one is missing, or has a wrong value.
    """
    for name in ("samples", "output"):
        if not values[name]:
            raise UserError(f"--{name} is missing (--help lists the options)")
    if values["incomplete"] not in ("refuse", "drop", "keep"):
        raise UserError(f"--incomplete cannot be {values['incomplete']!r} (choose from refuse, drop, keep)")
    if values["interval"] not in ("median", "mixture"):
        raise UserError(f"--interval cannot be {values['interval']!r} (choose from median, mixture)")
    if not 0 <= values["max_failure_fraction"] <= 1:
        raise UserError("--max_failure_fraction must be from 0 to 1")
    if is_remote(values["output"]):
        raise UserError(
            f"output {values['output']}: an aggregate is built in a local folder; copy it from there"
        )
    return {**values, "output": absolute(values["output"])}


if __name__ == "__main__":
    sys.exit(main())
