"""Build the tables of an output whose samples are all stored, for example by the tasks of a Slurm array.

    python -m pipelines.finish OUT

builds what tables are missing and writes OUT/manifest.json. Nothing is predicted: if samples are missing it
lists the `--snippets` that are left and ends with code 1, without tables.
"""

import sys
import time
from typing import TYPE_CHECKING

from beam_zoo.errors import RunFailed, UserError
from beam_zoo.runtime.tuning import keep_freed_memory
from beam_zoo.storage.files import absolute
from pipelines import command
from pipelines.command_line import Parser, add_option
from pipelines.options import BY_NAME

if TYPE_CHECKING:
    from beam_zoo.plan.run import Run
    from beam_zoo.samples.records import PartRef

DESCRIPTION = "Build the tables of an output whose samples are all stored."
NOT_COMPLETE = 1
MAX_FAILURE_FRACTION = BY_NAME["max_failure_fraction"]
SHOWN = 20


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.guarded(lambda: work(argv))


def work(argv: list[str] | None) -> int:
    """The command without what `guarded` makes of errors; returns its exit code."""
    parser = Parser(prog="python -m pipelines.finish", description=DESCRIPTION)
    parser.add_argument("output", metavar="OUT", help="folder of the output")
    add_option(parser, MAX_FAILURE_FRACTION, MAX_FAILURE_FRACTION.default)
    options, flags = command.parse_simple(parser, argv)
    fraction = MAX_FAILURE_FRACTION.convert(options["max_failure_fraction"])
    keep_freed_memory()
    try:
        finish(absolute(options["output"]), fraction, flags)
    except MissingSamples as missing:
        print(missing, *(f"--snippets {each}" for each in missing.slices), sep="\n")
        return NOT_COMPLETE
    return 0


class MissingSamples(RunFailed):
    """Not all samples are stored.

    Attributes:
        slices: the snippets that are left to predict, as `A:B`.
    """

    def __init__(self, count: str, slices: list[str]) -> None:
        super().__init__(f"the samples of {count} are missing, no tables are built; left to do:")
        self.slices = slices


def finish(output: str, max_failure_fraction: float, flags: list[str]) -> None:
    """Build the tables and the manifest from what is stored.

    Args:
        output: folder of the output.
        max_failure_fraction: of the rows.
        flags: Beam's options.

    Raises:
        MissingSamples: of some snippets none are stored.
        TooManyFailures: more galaxies failed than the fraction allows.
        UserError: the folder is not an output.
    """
    from beam_zoo.plan import plan_file
    from beam_zoo.plan.run import Run
    from beam_zoo.samples import parts
    from beam_zoo.storage import output as outputs
    from pipelines import manifest as manifests
    from pipelines.build import build_tables
    from runners import beam_options

    begin = time.time()
    made = plan_file.read(output)
    if made is None:
        raise UserError(f"{output} is not an output of predict or represent: it has no plan")
    stored = parts.stored_parts(made, output)
    if left := parts.missing_ranges(stored, made.snippets):
        outputs.remove_manifest(output)  # tables of an earlier run are not of what is stored
        raise MissingSamples(_count(made.snippets - len(stored)), left)
    run = Run(made, output, made.image_root, 1, "cpu")
    if (runner := beam_options.runner_name(flags)) != beam_options.DIRECT:
        there = f"{made.command} with --runner={runner} builds them there"
        print(f"note: the tables are built on this machine; {there}", file=sys.stderr)
    outputs.remove_manifest(output)
    reports = build_tables(run, flags)
    _say_what_may_pass(run, stored)
    manifest = manifests.write_manifest(run, reports, stored, begin, flags=flags)
    manifests.check_failures(manifest, output, max_failure_fraction)


def _say_what_may_pass(run: "Run", stored: "dict[int, list[PartRef]]") -> None:
    from beam_zoo.samples.retry import to_retry

    waiting = list(to_retry(run.plan, run.output, stored))
    for snippet in waiting[:SHOWN]:
        ids, locations = run.plan.read_rows(run.output, snippet)
        for offset in snippet.offsets[:SHOWN]:
            where = f"--snippets {snippet.number}:{snippet.number + 1}"
            print(f"may pass if predicted again: {ids[offset]} ({locations[offset]}), {where}")
    if waiting:
        total = sum(len(snippet.offsets) for snippet in waiting)
        print(
            f"{total} failures of {_count(len(waiting))} may pass: the same predict command tries them again"
        )


def _count(snippets: int) -> str:
    return "1 snippet" if snippets == 1 else f"{snippets:,} snippets"


if __name__ == "__main__":
    sys.exit(main())
