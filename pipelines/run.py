"""Carry out a prepared run: samples, then tables, then the manifest."""

import contextlib
import dataclasses
import functools
import random
import sys
import time
from collections.abc import Callable

import apache_beam as beam

from beam_zoo.errors import UserError
from beam_zoo.images.decoders import AHEAD
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.run import Run
from beam_zoo.plan.snippet import Snippet
from beam_zoo.runtime.progress import LocalProgress, StoredProgress
from beam_zoo.samples import parts
from beam_zoo.samples.retry import to_retry
from beam_zoo.storage import layout
from beam_zoo.storage import output as outputs
from beam_zoo.tables.tables import remove_reports
from pipelines import manifest as manifests
from pipelines import prepare as preparation
from pipelines.build import build_tables, tables_are_built
from pipelines.describe import describe
from pipelines.meanwhile import tables_meanwhile
from pipelines.options import Options
from pipelines.samples import samples
from pipelines.tables import tables
from runners import beam_options, cluster, direct, secrets
from runners.dataflow import job


def execute(command: str, options: Options, on_cluster: cluster.Runs = cluster.run) -> int:
    """Check, plan, predict, build the tables, and write the manifest.

    Args:
        command: `predict` or `represent`.
        options: checked.
        on_cluster: runs a graph where the runner is not the local one.

    Returns:
        The exit code: 0, or 3 if more galaxies failed than `--max_failure_fraction` allows.

    Raises:
        UserError: something is wrong that the user can put right.
        StorageFull: the output's disk is full.
    """
    begin = time.time()
    prepared = preparation.prepare(command, options)
    run = prepared.run
    stored = prepared.stored
    print(describe(prepared, options), file=sys.stderr)
    if options.dry_run:
        return 0
    preparation.publish(prepared, overwrite=options.overwrite)
    missing = [run.plan.snippet(n) for n in prepared.snippets if n not in stored]
    again = [s for s in to_retry(run.plan, run.output, stored) if s.number in prepared.snippets]
    if missing or again or not options.snippets:
        outputs.remove_manifest(run.output)
    # Reports would be of fewer, or of other, galaxies than are stored soon.
    remove_reports(run.output, *{run.plan.table_part(snippet.number) for snippet in missing + again})
    here = beam_options.runner_name(options.beam) == beam_options.DIRECT
    if here:
        with _tables_meanwhile(run, missing, whole=not options.snippets):
            predict_here(run, missing + again, options.beam)
    else:
        on = functools.partial(on_cluster, flags=options.beam)
        hints = prepared.hints
        done = predict_on_cluster(run, missing + again, None if options.snippets else stored, on, hints)
        if template := job.template(options.beam):
            if not done:
                raise UserError(f"nothing is left to do in {run.output}: no template is written")
            print(
                f"template {template} predicts into {run.output}; when it has run, "
                f"python -m pipelines.finish {run.output} writes the manifest",
                file=sys.stderr,
            )
            return 0
    if options.snippets:
        print(
            f"samples of snippets {options.snippets} are stored in {run.output}: when all are, "
            f"python -m pipelines.finish {run.output} builds the tables",
            file=sys.stderr,
        )
        return 0
    reports = build_tables(run, options.beam)
    flags = [*map(secrets.shown, options.beam)]
    details = {"options": dict(options.values), "beam_options": flags, "device": run.device}
    manifest = manifests.write(run.plan, run.output, reports, stored, begin, details)
    return manifests.exit_code(manifest, run.output, options.max_failure_fraction)


def _tables_meanwhile(
    run: Run, missing: list[Snippet], *, whole: bool
) -> contextlib.AbstractContextManager[None]:
    """Builds tables beside a GPU, if there are going to be any."""
    several = len({run.plan.table_part(snippet.number) for snippet in missing}) > 1
    return (
        tables_meanwhile(run.output) if AHEAD[run.device] and whole and several else contextlib.nullcontext()
    )


def predict_here(run: Run, snippets: list[Snippet], flags: list[str]) -> None:
    """Samples of these snippets, on the local runner: one pipeline, so that models load once."""
    if not snippets:
        return
    galaxies = sum(len(snippet.offsets) for snippet in snippets)
    with LocalProgress(galaxies, run.plan.command) as progress:
        watched = dataclasses.replace(run, progress=progress.name)
        order = _own_order(run.plan, snippets)
        direct.run(lambda p: samples(p | beam.Create(order, reshuffle=False), watched), flags)


def predict_on_cluster(
    run: Run,
    snippets: list[Snippet],
    stored: parts.Stored | None,
    on_cluster: Callable[[Callable[[beam.Pipeline], object]], None],
    hints: dict[str, str] | None = None,
) -> bool:
    """Samples and tables as one graph; samples only, where `stored` is None. Whether there was anything to do."""
    if not snippets and (stored is None or tables_are_built(run)):
        return False

    sent = run.for_workers()

    def build(p: beam.Pipeline) -> None:
        new = samples(p | "snippets to do" >> beam.Create(_own_order(run.plan, snippets)), sent, hints)
        if stored is None:
            return
        known = [ref for refs in stored.values() for ref in refs]
        old = p | "parts already there" >> beam.Create(known)
        tables((old, new) | beam.Flatten(), sent)

    galaxies = sum(len(snippet.offsets) for snippet in snippets)
    with StoredProgress(galaxies, run.plan.command, lambda: _stored_galaxies(run, snippets)):
        on_cluster(build)
    return True


def _stored_galaxies(run: Run, snippets: list[Snippet]) -> int:
    """Galaxies of those snippets (and attempts) that are stored by now."""
    there = {ref.name for refs in parts.stored_parts(run.plan, run.output).values() for ref in refs}
    return sum(len(s.offsets) for s in snippets if layout.part_name(s.number, s.attempt) in there)


def _own_order(plan: Plan, snippets: list[Snippet]) -> list[Snippet]:
    """A random order of this job's own, one table part after the other: two jobs on one output rarely take the same snippet."""
    drawn = random.Random(time.time_ns())
    by_part: dict[int, list[Snippet]] = {}
    for snippet in drawn.sample(snippets, len(snippets)):
        by_part.setdefault(plan.table_part(snippet.number), []).append(snippet)
    return [snippet for part in by_part.values() for snippet in part]
