"""Reads the samples of a union: stored parts of its runs, or samples that were reordered."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_zoo.errors import UserError
from beam_zoo.samples import combine, parts
from beam_zoo.samples.read import FILES, part_records
from beam_zoo.samples.records import PartRef
from beam_zoo.union.union import Union
from beam_zoo.union.working_files import PartitionWriter, read_partition

Records = Iterator[tuple[bytes, bytes]]
SAMPLES = "samples"
"""Folder of a reordered run with its samples."""


@dataclasses.dataclass(frozen=True)
class ReadTask:
    """What is read at once: a stored part of a run, or a table part's samples of a reordered run.

    Attributes:
        source: number of the run.
        ref: the stored part; None for a reordered run.
        start, stop: only galaxies of the union's rows [start, stop) are read.
    """

    source: int
    ref: PartRef | None
    start: int
    stop: int


def read_tasks(union: Union, stored: Sequence[parts.Stored], rows: range) -> list[ReadTask]:
    """The tasks that read all samples and failures of these rows.

    Args:
        union: the union; `reorder_samples` has reordered all runs that are in another order.
        stored: the parts of each run.
        rows: rows of the union, of whole table parts.
    """
    tasks: list[ReadTask] = []
    for number, source in enumerate(union.sources):
        if source.reordered is not None:
            for start in range(rows.start, rows.stop, union.part_rows):
                tasks.append(ReadTask(number, None, start, min(rows.stop, start + union.part_rows)))
            continue
        own = source.mapping.own_rows(rows.start, rows.stop, source.plan.rows)
        size = source.plan.snippet_size
        for snippet in range(own.start // size, -(-own.stop // size)) if own else ():
            tasks += [ReadTask(number, ref, rows.start, rows.stop) for ref in stored[number][snippet]]
    return tasks


def read(union: Union, task: ReadTask) -> tuple[list[tuple[int, dict[str, Any]]], Records]:
    """Carry out a task.

    Returns:
        (table part, file that was read) for each table part that the file has galaxies of; none for a
        reordered run. And (galaxy id, record) for each galaxy, predicted or failed.

    Raises:
        UserError: the part is missing, damaged or of another run.
    """
    source = union.sources[task.source]
    if task.ref is None:
        assert source.reordered is not None
        return [], _reordered_records(os.path.join(source.reordered, SAMPLES), task.start // union.part_rows)
    plan, folder = source.plan, parts.folders(source.plan)[0]
    part = parts.read_part(plan, source.output, folder, task.ref)
    snippet = plan.snippet(task.ref.snippet)
    union_rows = source.mapping.union_rows(snippet.start, snippet.stop)
    file = {
        "source": task.source,
        "name": f"{folder}/{task.ref.name}",
        "rows": part.table.num_rows,
        "galaxies": len(part.offsets),
        "sha256": part.sha256,
    }
    inside = union_rows[(union_rows >= task.start) & (union_rows < task.stop)]
    files = [(int(number), file) for number in np.unique(inside // union.part_rows)]
    rows = range(task.start, task.stop)
    return files, part_records(plan, source.output, task.ref, part, union_rows, task.source, rows)


def _reordered_records(folder: str, number: int) -> Records:
    table = read_partition(folder, number)
    if table is not None:
        for batch in table.to_batches():
            yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


def reorder_samples(union: Union, stored: Sequence[parts.Stored]) -> list[dict[str, Any]]:
    """Write the samples and failures of all runs that are in another order in the order of the union.

    Each such run becomes a file per table part. Memory is that of a stored part, and of a buffer.

    Args:
        union: the union.
        stored: the parts of each run.

    Returns:
        The files that were read.

    Raises:
        UserError: a part is missing, damaged or of another run.
        StorageFull: the disk or the quota is full.
    """
    files: list[dict[str, Any]] = []
    for number, source in enumerate(union.sources):
        if source.reordered is None:
            continue
        writer = PartitionWriter(os.path.join(source.reordered, SAMPLES))
        for ref in [ref for _, refs in sorted(stored[number].items()) for ref in refs]:
            found, records = read(union, ReadTask(number, ref, 0, union.rows))
            files.append(found[0][1])
            galaxies, values = zip(*records, strict=True)
            rows = np.array([combine.header(record)[3] for record in values], np.int64)
            columns = [pa.array(galaxies, pa.binary()), pa.array(values, pa.large_binary())]
            writer.add(rows // union.part_rows, pa.table(columns, ["galaxy", "record"]))
        writer.flush()
    return files


class ReadSamples(beam.DoFn):
    """Carries out tasks: emits (galaxy id, record) for each galaxy, and to the output `FILES` the files read.

    Args:
        union: the union.
    """

    def __init__(self, union: Union) -> None:
        self._union = union

    def process(self, task: ReadTask) -> Iterator[Any]:
        files, records = read(self._union, task)
        for file in files:
            yield beam.pvalue.TaggedOutput(FILES, file)
        yield from records


def unique_files(files: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files that were read, each once, ordered by run and name.

    Raises:
        UserError: a file was read more than once and has changed in between.
    """
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for file in files:
        before = found.setdefault((file["source"], file["name"]), file)
        if before != file:
            raise UserError(f"{file['name']} of run {file['source'] + 1} has changed while it was read")
    return [found[key] for key in sorted(found)]
