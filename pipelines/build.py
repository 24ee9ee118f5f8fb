"""Build tables from stored samples on the local runner; nothing here needs a model, or torch."""

import collections
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam

from beam_zoo.errors import RunFailed, UserError
from beam_zoo.plan.run import Run
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage.files import is_object
from beam_zoo.storage.gcs import CONNECTIONS
from beam_zoo.tables.reports import current_report
from pipelines.tables import tables
from runners import processes

SAMPLES_AT_ONCE = 64 << 20
"""Bytes of samples whose tables are built together: the local runner holds each about five times."""
ROUNDS = 5


def build_tables(run: Run, flags: list[str]) -> list[dict[str, Any]]:
    """Build the table parts that are not there, or not of the parts that are stored, on the local runner.

    Returns:
        The reports of all table parts.

    Raises:
        UserError: snippets are missing.
        RunFailed: other jobs keep changing the output.
    """
    # Another job on the same output may have written parts, or tables of fewer parts, in the meantime.
    for _ in range(ROUNDS):
        reports, to_build = _reports(run)
        if not to_build:
            return reports
        _tables_here(run, to_build, flags)
    raise RunFailed(f"other jobs keep changing {run.output}: run the same command again when they have ended")


def tables_are_built(run: Run) -> bool:
    """Whether there is a table part for all that is stored."""
    return not _reports(run)[1]


def _reports(run: Run) -> tuple[list[dict[str, Any]], parts.Stored]:
    """Reports of the table parts that are built, and what the others are to be built from."""
    by_part = _by_table_part(run)
    numbers = range(run.plan.table_parts)
    # Of a bucket many at a time: each report is a few requests, and all of them the wait for one.
    with ThreadPoolExecutor(CONNECTIONS if is_object(run.output) else 1) as pool:
        reports = pool.map(lambda n: current_report(run.plan, run.output, n, by_part[n]), numbers)
        found = dict(zip(numbers, reports, strict=True))
    to_build = {number: by_part[number] for number, report in found.items() if report is None}
    return [report for report in found.values() if report is not None], to_build


def _by_table_part(run: Run) -> parts.Stored:
    stored = parts.stored_parts(run.plan, run.output)
    if left := parts.missing_ranges(stored, run.plan.snippets):
        raise UserError(
            f"{run.output} lacks the samples of --snippets {' '.join(left)}: run the same command again"
        )
    by_part: parts.Stored = collections.defaultdict(list)
    for snippet, refs in sorted(stored.items()):
        by_part[run.plan.table_part(snippet)] += refs
    return by_part


def table_parts_at_once(rows: int, values: int) -> int:
    """How many table parts the local runner takes at a time.

    Args:
        rows: galaxies of a table part.
        values: float32 numbers of a galaxy's samples.
    """
    return max(1, SAMPLES_AT_ONCE // max(1, 4 * rows * values))


def _tables_here(run: Run, by_part: parts.Stored, flags: list[str]) -> None:
    """A few table parts at a time: the local runner keeps every shuffle in memory."""
    numbers = sorted(by_part)
    plan = run.plan
    at_once = table_parts_at_once(
        len(plan.table_rows(0)), len(plan.members) * plan.passes * len(plan.outputs)
    )
    builds = []
    for start in range(0, len(numbers), at_once):
        some = [ref for number in numbers[start : start + at_once] for ref in by_part[number]]
        builds.append(functools.partial(_tables_of, refs=some, run=run))
    processes.run_all(builds, flags)


def _tables_of(p: beam.Pipeline, refs: list[PartRef], run: Run) -> None:
    tables(p | beam.Create(refs, reshuffle=False), run)
