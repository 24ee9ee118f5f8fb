"""Carry out a prepared run: samples, then tables, then the manifest."""

import collections
import dataclasses
import random
import sys
import time
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_zoo import output as outputs
from beam_zoo import parts
from beam_zoo.errors import RunFailed, UserError
from beam_zoo.progress import Progress
from beam_zoo.records import PartRef, Snippet
from beam_zoo.retry import to_retry
from beam_zoo.run import Run
from beam_zoo.tables import read_report, remove_report
from pipelines import manifest as manifests
from pipelines import prepare as preparation
from pipelines.describe import describe
from pipelines.options import Options
from pipelines.samples import samples
from pipelines.tables import tables
from runners import beam_options, direct

SAMPLES_AT_ONCE = 64 << 20
"""Bytes of samples whose tables are built together: the local runner holds each about five times."""
ROUNDS = 5
Stored = dict[int, list[PartRef]]


def execute(command: str, options: Options) -> int:
    """Check, plan, predict, build the tables, and write the manifest.

    Returns:
        The exit code: 0, or 3 if more galaxies failed than `--max_failure_fraction` allows.

    Raises:
        UserError: something is wrong that the user can put right.
        StorageFull: the output's disk is full.
    """
    begin = time.time()
    prepared = preparation.prepare(command, options)
    run = prepared.run
    stored = {} if options.overwrite else parts.stored_parts(run.plan, run.output)
    print(describe(prepared, stored), file=sys.stderr)
    if options.dry_run:
        return 0
    preparation.publish(prepared, overwrite=options.overwrite)
    missing = [run.plan.snippet(n) for n in prepared.snippets if n not in stored]
    again = [s for s in to_retry(run.plan, run.output, stored) if s.number in prepared.snippets]
    if missing or again:
        # They would be of fewer, or of other, galaxies than are stored soon.
        outputs.remove_manifest(run.output)
        for number in {run.plan.table_part(snippet.number) for snippet in missing + again}:
            remove_report(run.output, number)
    here = beam_options.runner_name(options.beam) == beam_options.DIRECT
    if here:
        predict_here(run, missing + again, options.beam)
    else:
        predict_on_cluster(run, missing + again, None if options.snippets else stored, options.beam)
    if options.snippets:
        print(
            f"samples of snippets {options.snippets} are stored in {run.output}: when all are, "
            f"python -m pipelines.finish {run.output} builds the tables",
            file=sys.stderr,
        )
        return 0
    outputs.remove_manifest(run.output)
    reports = build_tables(run, options.beam)
    details = {"options": dict(options.values), "beam_options": options.beam, "device": run.device}
    manifest = manifests.write(run.plan, run.output, reports, stored, begin, details)
    return manifests.exit_code(manifest, run.output, options.max_failure_fraction)


def predict_here(run: Run, snippets: list[Snippet], flags: list[str]) -> None:
    """Samples of these snippets, on the local runner: one pipeline, so that models load once."""
    if not snippets:
        return
    galaxies = sum(len(snippet.offsets) for snippet in snippets)
    with Progress(galaxies, run.plan.command) as progress:
        watched = dataclasses.replace(run, progress=progress.folder)
        order = _own_order(snippets)
        direct.run(lambda p: samples(p | beam.Create(order, reshuffle=False), watched), flags)


def predict_on_cluster(run: Run, snippets: list[Snippet], stored: Stored | None, flags: list[str]) -> None:
    """Samples and tables as one graph; samples only, where `stored` is None."""
    with beam.Pipeline(options=PipelineOptions(flags)) as p:
        new = samples(p | "snippets to do" >> beam.Create(_own_order(snippets)), run)
        if stored is None:
            return
        outputs.remove_manifest(run.output)
        known = [ref for refs in stored.values() for ref in refs]
        old = p | "parts already there" >> beam.Create(known)
        tables((old, new) | beam.Flatten(), run)


def _own_order(snippets: list[Snippet]) -> list[Snippet]:
    """A random order of this job's own: two jobs on one output then rarely take the same snippet."""
    return random.Random(time.time_ns()).sample(snippets, len(snippets))


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
        by_part = _by_table_part(run)
        found = {n: read_report(run.plan, run.output, n, by_part[n]) for n in range(run.plan.table_parts)}
        to_build = {number: by_part[number] for number, report in found.items() if report is None}
        if not to_build:
            return [report for report in found.values() if report is not None]
        _tables_here(run, to_build, flags)
    raise RunFailed(f"other jobs keep changing {run.output}: run the same command again when they have ended")


def _by_table_part(run: Run) -> Stored:
    stored = parts.stored_parts(run.plan, run.output)
    if left := missing_ranges(stored, run.plan.snippets):
        raise UserError(
            f"{run.output} lacks the samples of --snippets {' '.join(left)}: run the same command again"
        )
    by_part: Stored = collections.defaultdict(list)
    for snippet, refs in sorted(stored.items()):
        by_part[run.plan.table_part(snippet)] += refs
    return by_part


def missing_ranges(stored: Stored, count: int) -> list[str]:
    """The snippets that are not stored, as slices `A:B`."""
    missing = [number for number in range(count) if number not in stored]
    ranges: list[list[int]] = []
    for number in missing:
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    return [f"{first}:{last}" for first, last in ranges]


def table_parts_at_once(rows: int, values: int) -> int:
    """How many table parts the local runner takes at a time.

    Args:
        rows: galaxies of a table part.
        values: float32 numbers of a galaxy's samples.
    """
    return max(1, SAMPLES_AT_ONCE // max(1, 4 * rows * values))


def _tables_here(run: Run, by_part: Stored, flags: list[str]) -> None:
    """A few table parts at a time: the local runner keeps every shuffle in memory."""
    numbers = sorted(by_part)
    plan = run.plan
    at_once = table_parts_at_once(
        len(plan.table_rows(0)), len(plan.members) * plan.passes * len(plan.outputs)
    )
    for start in range(0, len(numbers), at_once):
        some = [ref for number in numbers[start : start + at_once] for ref in by_part[number]]

        def build(p: beam.Pipeline, refs: list[PartRef] = some) -> None:
            tables(p | beam.Create(refs, reshuffle=False), run)

        direct.run(build, flags)
