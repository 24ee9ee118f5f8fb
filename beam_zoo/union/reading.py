"""The samples of a union, read piece by piece: stored parts of its runs, or what was moved into its order."""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_zoo.errors import UserError
from beam_zoo.images.failure import Failure
from beam_zoo.samples import combine, parts
from beam_zoo.samples.batches import SampleBatch, SampleBatcher
from beam_zoo.samples.combine import CombineSamples
from beam_zoo.samples.read import FILES, part_records
from beam_zoo.samples.records import PartRef
from beam_zoo.union.union import Union
from beam_zoo.union.working_files import PartitionWriter, read_partition

Records = Iterator[tuple[bytes, bytes]]


@dataclasses.dataclass(frozen=True)
class ReadTask:
    """What is read at once: a stored part, or the moved samples of a table part.

    Attributes:
        source: number of the run.
        ref: the part, or None for moved samples.
        start, stop: only galaxies of the rows [start, stop) of the union.
    """

    source: int
    ref: PartRef | None
    start: int
    stop: int


def read_tasks(union: Union, stored: list[parts.Stored], rows: range) -> list[ReadTask]:
    """All that holds samples or failures of these rows, which are those of whole table parts.

    Args:
        union: the union; `reorder_samples` has been through its runs that are in another order.
        stored: the parts of each run.
        rows: rows of the union.
    """
    pieces: list[ReadTask] = []
    for number, source in enumerate(union.sources):
        if source.moved is not None:
            for start in range(rows.start, rows.stop, union.part_rows):
                pieces.append(ReadTask(number, None, start, min(rows.stop, start + union.part_rows)))
            continue
        own = source.places.rows_within(rows.start, rows.stop, source.plan.rows)
        size = source.plan.snippet_size
        for snippet in range(own.start // size, -(-own.stop // size)) if own else ():
            pieces += [ReadTask(number, ref, rows.start, rows.stop) for ref in stored[number][snippet]]
    return pieces


def read_task(union: Union, piece: ReadTask) -> tuple[list[tuple[int, dict[str, Any]]], Records]:
    """Read a piece.

    Returns:
        (table part, file that was read) for every table part that the file has galaxies of; none for moved samples.
        And (galaxy id, record) for every galaxy, predicted or failed.

    Raises:
        UserError: the part is missing, damaged or of another run.
    """
    source = union.sources[piece.source]
    if piece.ref is None:
        assert source.moved is not None
        return [], _moved_records(os.path.join(source.moved, "samples"), piece.start // union.part_rows)
    plan, folder = source.plan, parts.folders(source.plan)[0]
    part = parts.read_part(plan, source.output, folder, piece.ref)
    snippet = plan.snippet(piece.ref.snippet)
    places = source.places.of(snippet.start, snippet.stop)
    file = {
        "source": piece.source,
        "name": f"{folder}/{piece.ref.name}",
        "rows": part.table.num_rows,
        "galaxies": len(part.offsets),
        "sha256": part.sha256,
    }
    inside = places[(places >= piece.start) & (places < piece.stop)]
    files = [(int(number), file) for number in np.unique(inside // union.part_rows)]
    rows = range(piece.start, piece.stop)
    return files, part_records(plan, source.output, piece.ref, part, places, piece.source, rows)


def _moved_records(folder: str, number: int) -> Records:
    table = read_partition(folder, number)
    if table is not None:
        for batch in table.to_batches():
            yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


def reorder_samples(union: Union, number: int, stored: parts.Stored) -> list[dict[str, Any]]:
    """Put a run's samples and failures into the order of the union, streaming: a file a table part.

    Args:
        union: the union.
        number: of a run whose rows are in another order.
        stored: its parts.

    Returns:
        The files that were read.
    """
    moved = union.sources[number].moved
    assert moved is not None
    buckets = PartitionWriter(os.path.join(moved, "samples"))
    read = []
    for _, refs in sorted(stored.items()):
        for ref in refs:
            files, records = read_task(union, ReadTask(number, ref, 0, union.rows))
            read.append(files[0][1])
            galaxies, values = zip(*records, strict=True)
            rows = np.array([combine.header(record)[3] for record in values], np.int64)
            columns = [pa.array(galaxies, pa.binary()), pa.array(values, pa.large_binary())]
            buckets.add(rows // union.part_rows, pa.table(columns, ["galaxy", "record"]))
    buckets.close()
    return read


class ReadSamples(beam.DoFn):
    """A piece becomes (galaxy id, record) for every galaxy; the files that were read go to the output `FILES`.

    Args:
        union: the union.
    """

    def __init__(self, union: Union) -> None:
        self._union = union

    def process(self, piece: ReadTask) -> Iterator[Any]:
        files, records = read_task(self._union, piece)
        for file in files:
            yield beam.pvalue.TaggedOutput(FILES, file)
        yield from records


@dataclasses.dataclass(frozen=True)
class TablePartInput:
    """What a table part of the union must be computed from.

    Attributes:
        rows: `id_str`, `file_loc` and the carried columns, in the order of the table.
        galaxies: the predicted galaxies with their samples; `Union.ensemble` says which samples those are.
        failures: (row, id, failure) of all others, in order.
        files: the stored parts that were read.
    """

    rows: pa.Table
    galaxies: list[SampleBatch]
    failures: list[tuple[int, str, Failure]]
    files: list[dict[str, Any]]


def table_part(union: Union, stored: list[parts.Stored], part: int) -> TablePartInput:
    """Read a table part in this process, without a pipeline.

    Args:
        union: the union; `reorder_samples` has been through its runs that are in another order.
        stored: the parts of each run.
        part: number of the table part.

    Raises:
        UserError: a stored part is missing or damaged, two runs contradict each other, or a galaxy is incomplete.
    """
    rows = union.table_rows(part)
    by_galaxy: defaultdict[bytes, list[bytes]] = defaultdict(list)
    read = []
    for piece in read_tasks(union, stored, rows):
        files, records = read_task(union, piece)
        read += [file for _, file in files]
        for galaxy, record in records:
            by_galaxy[galaxy].append(record)
    combine_samples, batcher = CombineSamples(), SampleBatcher(union.ensemble)
    for galaxy, found in by_galaxy.items():
        batcher.add(galaxy, combine_samples.apply(found))
    galaxies = batcher.flush()
    if sum(len(some.rows) for some in galaxies) + len(batcher.failures) != len(rows):
        raise UserError(f"table part {part}: the runs hold {len(by_galaxy)} galaxies of {len(rows)}")
    return TablePartInput(union.read_table_rows("", part), galaxies, sorted(batcher.failures), read)


def unique_files(files: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files that were read, each once, by run and name.

    Raises:
        UserError: a file had other bytes when it was read again.
    """
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for file in files:
        before = found.setdefault((file["source"], file["name"]), file)
        if before != file:
            raise UserError(f"{file['name']} of run {file['source'] + 1} has changed while it was read")
    return [found[key] for key in sorted(found)]
