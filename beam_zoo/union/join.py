"""Joins catalogues by galaxy id in bounded memory: which row of the union each of their rows is.

The union has the rows of the first catalogue in its order, then those of the second that the first lacks, and
so on. Ids are hashed into partitions on disk, so that equal ids are in the same one. What remains is one
number per row, in files that are mapped into memory.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from beam_zoo.catalogue.read import ID
from beam_zoo.plan.plan import Plan
from beam_zoo.union.working_files import PartitionWriter, create_array, partition_path, read_partition

IDS_PER_PARTITION = 500_000
ROWS_AT_ONCE = 1 << 20
_ROW_BITS = 44
"""A row is identified by one integer, its key: the row in these bits, the catalogue's number above them."""


@dataclasses.dataclass(frozen=True)
class RowMapping:
    """Which row of the union each row of a catalogue is.

    Attributes:
        path: a .npy file with the row of the union for each row of the catalogue, int64, shape (row,); None
            where each row has the same number in both.
        is_increasing: whether the catalogue's rows are in the union's order.
    """

    path: str | None
    is_increasing: bool

    def union_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows of the union that the catalogue's rows [start, stop) are; int64, shape (row,)."""
        if self.path is None:
            return np.arange(start, stop)
        return np.array(np.load(self.path, mmap_mode="r")[start:stop])

    def own_rows(self, start: int, stop: int, length: int) -> range:
        """Rows of the catalogue that are the union's rows [start, stop); only where they are in its order.

        Args:
            start, stop: rows of the union.
            length: number of the catalogue's rows.
        """
        assert self.is_increasing
        if self.path is None:
            return range(min(start, length), min(stop, length))
        found = np.searchsorted(np.load(self.path, mmap_mode="r"), [start, stop])
        return range(int(found[0]), int(found[1]))


def join_by_id(catalogues: Sequence[tuple[Plan, str]], folder: str) -> tuple[list[RowMapping], int]:
    """Join catalogues.

    Args:
        catalogues: plan and output folder of each; their rows are those of the plan.
        folder: for the mappings, and for files that are removed again.

    Returns:
        The mapping of each catalogue, and the number of rows of the union.

    Raises:
        StorageFull: the disk or the quota is full.
    """
    digests = [plan.catalogue.sha256 for plan, _ in catalogues]
    # Most often all runs have one catalogue: the same ids and locations need no join.
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    distinct = sorted(first.values())
    mappings = {digests[distinct[0]]: RowMapping(None, True)}
    total = catalogues[distinct[0]][0].rows
    if len(distinct) > 1:
        chosen = [catalogues[index] for index in distinct]
        count = _partition_ids(chosen, os.path.join(folder, "ids"))
        arrays = _first_occurrences(chosen, folder, count)
        for number in range(1, len(chosen)):
            total, is_increasing = _number_rows(arrays, number, total)
            mappings[digests[distinct[number]]] = RowMapping(_array_path(folder, number), is_increasing)
    return [mappings[digest] for digest in digests], total


def _array_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"union-rows-{number}.npy")


def _read_ids(plan: Plan, output: str) -> Iterator[pa.ChunkedArray]:
    without_carried = dataclasses.replace(plan, carried=())
    for part in range(plan.table_parts):
        yield without_carried.read_table_rows(output, part).column(ID)


def _partition_ids(catalogues: list[tuple[Plan, str]], folder: str) -> int:
    """Write all ids and keys to partitions, by the ids' hashes; returns the number of partitions."""
    count = 1 + sum(plan.rows for plan, _ in catalogues) // IDS_PER_PARTITION
    writer = PartitionWriter(folder)
    for number, (plan, output) in enumerate(catalogues):
        start = 0
        for ids in _read_ids(plan, output):
            keys = (number << _ROW_BITS) + np.arange(start, start + len(ids))
            hashes = pd.util.hash_array(ids.to_numpy(), categorize=False)
            writer.add(hashes % np.uint64(count), pa.table({"id": ids, "key": keys}))
            start += len(ids)
    writer.flush()
    return count


def _first_occurrences(catalogues: list[tuple[Plan, str]], folder: str, count: int) -> list[np.memmap]:
    """For each row of each catalogue, the key of the first row with its id; none for the first catalogue.

    Removes the partitions of the ids.
    """
    arrays = [np.zeros(0, np.int64)] + [
        create_array(_array_path(folder, number), np.int64, catalogues[number][0].rows)
        for number in range(1, len(catalogues))
    ]
    ids = os.path.join(folder, "ids")
    for partition in range(count):
        table = read_partition(ids, partition)
        if table is None:
            continue
        key = table.column("key").to_numpy()
        codes = table.column("id").combine_chunks().dictionary_encode().indices.to_numpy()
        # Keys are in ascending order, and `np.unique` gives the first index of each code.
        first_index = np.unique(codes, return_index=True)[1]
        first_key = key[first_index[codes]]
        for number in range(1, len(arrays)):
            own = key >> _ROW_BITS == number
            arrays[number][_row(key[own])] = first_key[own]
        os.unlink(partition_path(ids, partition))
    os.rmdir(ids)
    return arrays


def _row(key: np.ndarray) -> np.ndarray:
    return key & ((1 << _ROW_BITS) - 1)


def _number_rows(arrays: list[np.memmap], number: int, total: int) -> tuple[int, bool]:
    """Replace the keys of one catalogue by rows of the union, in place; those of earlier catalogues are done.

    Args:
        arrays: of all catalogues.
        number: of this catalogue.
        total: number of the union's rows from earlier catalogues.

    Returns:
        The number of the union's rows so far, and whether the catalogue's rows are in the union's order.
    """
    last, is_increasing = -1, True
    for start in range(0, len(arrays[number]), ROWS_AT_ONCE):
        first_key = np.array(arrays[number][start : start + ROWS_AT_ONCE])
        catalogue, row = first_key >> _ROW_BITS, _row(first_key)
        union_row = np.where(catalogue == 0, row, -1)
        for other in range(1, number):
            theirs = catalogue == other
            union_row[theirs] = arrays[other][row[theirs]]
        new = catalogue == number
        union_row[new] = total + np.arange(new.sum())
        total += int(new.sum())
        is_increasing = is_increasing and bool(np.all(np.diff(union_row, prepend=last) > 0))
        last = int(union_row[-1])
        arrays[number][start : start + ROWS_AT_ONCE] = union_row
    arrays[number].flush()
    return total, is_increasing
