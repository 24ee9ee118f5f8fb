"""Samples of snippets: on the local runner, or with the tables as one graph on a cluster."""

import dataclasses
import random
import time
from collections.abc import Callable

import apache_beam as beam

from beam_zoo.plan.plan import Plan
from beam_zoo.plan.run import Run
from beam_zoo.plan.snippet import Snippet
from beam_zoo.runtime.progress import LocalProgress, StoredProgress
from beam_zoo.samples import parts
from beam_zoo.storage import layout
from pipelines.build import tables_are_built
from pipelines.samples import samples
from pipelines.tables import tables
from runners import direct

RunsGraph = Callable[[Callable[[beam.Pipeline], object]], None]
"""Runs what a function adds to a pipeline, to its end."""


def predict_here(run: Run, snippets: list[Snippet], flags: list[str]) -> None:
    """Samples of these snippets, on the local runner: one pipeline, so that models load once."""
    if not snippets:
        return
    galaxies = sum(len(snippet.offsets) for snippet in snippets)
    with LocalProgress(galaxies, run.plan.command) as progress:
        watched = dataclasses.replace(run, progress=progress.name)
        order = _in_random_order(run.plan, snippets)
        direct.run(lambda p: samples(p | beam.Create(order, reshuffle=False), watched), flags)


def predict_on_cluster(
    run: Run,
    snippets: list[Snippet],
    stored: parts.Stored | None,
    on_cluster: RunsGraph,
    hints: dict[str, str] | None = None,
) -> bool:
    """Samples and tables as one graph.

    Args:
        run: the run.
        snippets: those to predict.
        stored: the parts that are there already; None for samples without tables.
        on_cluster: runs the graph.
        hints: Beam's resource hints of the steps that need a GPU.

    Returns:
        Whether there was anything to do.
    """
    if not snippets and (stored is None or tables_are_built(run)):
        return False

    sent = run.for_workers()

    def build(p: beam.Pipeline) -> None:
        to_do = p | "snippets to do" >> beam.Create(_in_random_order(run.plan, snippets))
        new = samples(to_do, sent, hints)
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


def _in_random_order(plan: Plan, snippets: list[Snippet]) -> list[Snippet]:
    """A random order, one table part after the other: two jobs on one output rarely take the same snippet."""
    drawn = random.Random(time.time_ns())
    by_part: dict[int, list[Snippet]] = {}
    for snippet in drawn.sample(snippets, len(snippets)):
        by_part.setdefault(plan.table_part(snippet.number), []).append(snippet)
    return [snippet for part in by_part.values() for snippet in part]
