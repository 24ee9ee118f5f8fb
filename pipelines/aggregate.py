"""Build the tables of several runs together: a model added later, more passes, a second machine's half.

    python -m pipelines.aggregate --samples OUT1 OUT2 --output OUT3

joins the stored samples of the runs by galaxy id, and writes OUT3/friendly, OUT3/advanced, OUT3/failures
(Parquet) and OUT3/manifest.json. The runs are only read.
"""

import dataclasses
import os
import sys
import time
from typing import Any

from beam_zoo.errors import UserError
from beam_zoo.runtime.tuning import keep_freed_memory
from beam_zoo.storage.files import absolute, is_remote
from pipelines import command
from pipelines.command_line import Parser, add_option
from pipelines.options import BY_NAME

DESCRIPTION = "Build the tables of several runs together, from their stored samples."
MOST_RUNS = 64
SHARED_OPTIONS = BY_NAME["interval"], BY_NAME["max_failure_fraction"]
"""Options that `predict` has too."""


@dataclasses.dataclass(frozen=True)
class AggregateOptions:
    """The command's own options.

    Attributes:
        samples: outputs of `predict`; their order is the tables'.
        output: folder of the new tables, absolute.
        carry: columns that the tables carry along; None for all that a run carries.
        incomplete: `refuse`, `drop` or `keep` galaxies that are not in all runs that have a member or pass.
        interval: `median` or `mixture`.
        max_failure_fraction: of the rows.
        overwrite: whether an earlier aggregate is replaced.
    """

    samples: list[str]
    output: str
    carry: list[str] | None
    incomplete: str
    interval: str
    max_failure_fraction: float
    overwrite: bool

    @classmethod
    def of(cls, values: dict[str, Any]) -> "AggregateOptions":
        """Check the values of all options.

        Args:
            values: by the names of the attributes; None for an option that is missing.

        Raises:
            UserError: an option is missing, or has a wrong value.
        """
        for name in ("samples", "output"):
            if not values[name]:
                raise UserError(f"--{name} is missing (--help lists the options)")
        if values["incomplete"] not in ("refuse", "drop", "keep"):
            raise UserError(
                f"--incomplete cannot be {values['incomplete']!r} (choose from refuse, drop, keep)"
            )
        shared = {option.name: option.convert(values[option.name]) for option in SHARED_OPTIONS}
        if is_remote(values["output"]):
            raise UserError(
                f"output {values['output']}: an aggregate is built in a local folder; copy it from there"
            )
        return cls(**{**values, **shared, "output": absolute(values["output"])})


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
    for option in SHARED_OPTIONS:
        add_option(parser, option, option.default)
    parser.add_argument(
        "--overwrite", action="store_true", help="build the tables of an earlier aggregate anew"
    )
    values, flags = command.parse_simple(parser, argv)
    options = AggregateOptions.of(values)
    keep_freed_memory()
    execute(options, flags)
    return 0


def execute(options: AggregateOptions, flags: list[str]) -> None:
    """The dataflow of `aggregate`: runs, union, tables, publication.

    Args:
        options: the command's own options.
        flags: Beam's options.

    Raises:
        TooManyFailures: more galaxies failed than `--max_failure_fraction` allows; the output is complete.
        UserError: the runs are not compatible, or contradict each other.
        RunFailed: a runner failed; the same command may succeed.
        StorageFull: the output's disk is full.
    """
    # Beam takes seconds to import: not for --help.
    from beam_zoo.plan import plan as plans
    from beam_zoo.runtime.versions import changes, versions
    from beam_zoo.samples.ensemble import REFUSE
    from beam_zoo.union.incomplete import refuse_incomplete
    from beam_zoo.union.runs import complete_parts, open_runs
    from beam_zoo.union.union import unite
    from pipelines.aggregate_manifest import make_manifest
    from pipelines.aggregate_output import check_output, publish, working_folder
    from pipelines.aggregate_tables import build
    from pipelines.manifest import check_failures
    from runners import cluster

    begin, output = time.time(), options.output
    cluster.check(flags)
    runs = open_runs(options.samples)
    if len(runs) > MOST_RUNS:
        raise UserError(f"{len(runs)} runs are too many for one aggregate: {MOST_RUNS} at most")
    stored = [complete_parts(plan, folder) for plan, folder in runs]
    check_output(output, [run.output for run in runs], overwrite=options.overwrite)
    for plan, folder in runs:
        if changed := changes(plan.versions, versions()):
            print(f"note: {folder} was predicted with other versions: {changed}", file=sys.stderr)
    with working_folder(output, overwrite=options.overwrite) as work:
        union = unite(
            runs,
            work,
            carry=options.carry,
            incomplete=options.incomplete,
            interval=options.interval,
            part_rows=plans.TABLE_ROWS,
        )
        if union.incomplete == REFUSE:
            refuse_incomplete(union, stored, work)
        built = os.path.join(work, "tables")
        files_read = build(union, stored, built, flags)
        manifest = make_manifest(union, built, files_read, begin, dataclasses.asdict(options), flags)
        publish(built, output, manifest, overwrite=options.overwrite)
    print(
        f"{manifest['rows_predicted']:,} of {union.rows:,} galaxies aggregated from {len(runs)} runs, "
        f"{manifest['rows_failed']:,} failed, in {time.time() - begin:.1f} s: {output}",
        file=sys.stderr,
    )
    check_failures(manifest, output, options.max_failure_fraction)


if __name__ == "__main__":
    sys.exit(main())
