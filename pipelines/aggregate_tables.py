"""From the samples of several runs to tables."""

import functools
from typing import Any

import apache_beam as beam

from beam_zoo.samples import parts
from beam_zoo.samples.read import FILES
from beam_zoo.union.reading import ReadSamples, ReadTask, read_tasks, reorder_samples
from beam_zoo.union.union import Union
from pipelines.build import table_parts_at_once
from pipelines.tables import combine_and_write
from runners import beam_options, cluster, processes


def build(union: Union, stored: list[parts.Stored], output: str, flags: list[str]) -> list[dict[str, Any]]:
    """Build all tables of a union.

    Args:
        union: the union.
        stored: the parts of each run.
        output: the folder that the tables and their reports are written below.
        flags: Beam's options.

    Returns:
        The files that were read outside the pipeline, to reorder runs.

    Raises:
        UserError: a stored part is missing or damaged, runs contradict each other, or a galaxy is incomplete.
        RunFailed: a runner failed.
        StorageFull: the disk or the quota is full.
    """
    if beam_options.runner_name(flags) != beam_options.DIRECT:
        tasks = [
            ReadTask(number, ref, 0, union.rows)
            for number, of_run in enumerate(stored)
            for refs in of_run.values()
            for ref in refs
        ]
        cluster.run(lambda p: tables(p, tasks, union, output), flags)
        return []
    # The local runner keeps every shuffle in memory: a few table parts at a time, each from what it needs.
    files = reorder_samples(union, stored)
    largest = max(source.plan.snippet_size for source in union.sources)
    at_once = table_parts_at_once(union.part_rows, len(union.ensemble.samples) * len(union.outputs))
    rows = union.part_rows * max(at_once, -(-largest // union.part_rows))
    builds = []
    for first in range(0, union.rows, rows):
        tasks = read_tasks(union, stored, range(first, min(union.rows, first + rows)))
        builds.append(functools.partial(tables, tasks=tasks, union=union, output=output))
    processes.run_all(builds, flags)
    return files


def tables(
    p: beam.Pipeline, tasks: list[ReadTask], union: Union, output: str
) -> "beam.PCollection[dict[str, Any]]":
    """Read the samples of runs, combine those of each galaxy, and write the tables.

    Args:
        p: the pipeline.
        tasks: which samples are read.
        union: the union.
        output: the folder that the tables and their reports are written below.

    Returns:
        One report per table part.
    """
    reader = beam.ParDo(ReadSamples(union)).with_output_types(tuple[bytes, bytes])
    read = (
        p
        | "tasks" >> beam.Create(tasks, reshuffle=False)
        | "read samples" >> reader.with_outputs(FILES, main="galaxies")
    )
    return combine_and_write(read, union, output, union.ensemble)
