"""Where the rows of several catalogues stand in their union, joined by galaxy id in bounded memory.

The union has the rows of the first catalogue in its order, then those of the second that the first lacks, and so on.
Ids go through buckets on disk by their hash; what stays is one number per row, in files that are mapped into memory.
"""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from beam_zoo.catalogue.read import ID
from beam_zoo.plan.plan import Plan
from beam_zoo.storage.files import storage
from beam_zoo.union.working_files import PartitionWriter, read_partition

IDS_A_BUCKET = 500_000
ROWS_AT_ONCE = 1 << 20
_ROW_BITS = 44


@dataclasses.dataclass(frozen=True)
class RowMapping:
    """Where the rows of one catalogue stand in the union.

    Attributes:
        path: a .npy file with the position of every row, int64, or None where row n stands at position n.
        in_order: whether positions grow from row to row.
    """

    path: str | None
    in_order: bool

    def of(self, start: int, stop: int) -> np.ndarray:
        """Positions of the rows [start, stop), int64."""
        if self.path is None:
            return np.arange(start, stop)
        return np.array(np.load(self.path, mmap_mode="r")[start:stop])

    def rows_within(self, start: int, stop: int, rows: int) -> range:
        """The rows that stand at positions [start, stop), where they are in order; `rows` is the catalogue's length."""
        assert self.in_order
        if self.path is None:
            return range(min(start, rows), min(stop, rows))
        found = np.searchsorted(np.load(self.path, mmap_mode="r"), [start, stop])
        return range(int(found[0]), int(found[1]))


def unite(catalogues: list[tuple[Plan, str]], folder: str) -> tuple[list[RowMapping], int]:
    """RowMapping of every catalogue's rows, and the number of rows of the union.

    Args:
        catalogues: plan and output folder of each; their rows are those of the plan.
        folder: for the positions, and for files that are removed again.
    """
    digests = [plan.catalogue["sha256"] for plan, _ in catalogues]
    # Most often one catalogue is predicted several times: the same ids and locations need no join.
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    distinct = sorted(first.values())
    places = {digests[distinct[0]]: RowMapping(None, True)}
    total = catalogues[distinct[0]][0].rows
    if len(distinct) > 1:
        chosen = [catalogues[index] for index in distinct]
        count = _deal_ids(chosen, os.path.join(folder, "ids"))
        maps = _find_owners(chosen, folder, count)
        for number in range(1, len(chosen)):
            total, in_order = _positions(maps, number, total)
            places[digests[distinct[number]]] = RowMapping(_path(folder, number), in_order)
    return [places[digest] for digest in digests], total


def allocate_array(path: str, dtype: type[np.generic], rows: int) -> np.memmap:
    """A new .npy file of zeros, mapped into memory, whose space on disk is its own: a write to it cannot fail.

    Args:
        path: the file.
        dtype: of its values.
        rows: how many there are.

    Raises:
        StorageFull: the disk or the quota is full.
        UserError: the file cannot be written.
    """
    with storage(path):
        mapped: np.memmap = np.lib.format.open_memmap(path, "w+", dtype, (rows,))
        # Without this the file has holes, and the first touch of one on a full disk is a SIGBUS.
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return mapped


def _path(folder: str, number: int) -> str:
    return os.path.join(folder, f"positions-{number}.npy")


def _ids(plan: Plan, output: str) -> Iterator[pa.ChunkedArray]:
    bare = dataclasses.replace(plan, carried=())
    for part in range(plan.table_parts):
        yield bare.read_table_rows(output, part).column(ID)


def _deal_ids(catalogues: list[tuple[Plan, str]], folder: str) -> int:
    """All ids into buckets, so that equal ids meet; returns the number of buckets."""
    count = 1 + sum(plan.rows for plan, _ in catalogues) // IDS_A_BUCKET
    buckets = PartitionWriter(folder)
    for number, (plan, output) in enumerate(catalogues):
        start = 0
        for ids in _ids(plan, output):
            keys = (number << _ROW_BITS) + np.arange(start, start + len(ids))
            hashes = pd.util.hash_array(ids.to_numpy(), categorize=False)
            buckets.add(hashes % np.uint64(count), pa.table({"id": ids, "key": keys}))
            start += len(ids)
    buckets.close()
    return count


def _find_owners(catalogues: list[tuple[Plan, str]], folder: str, count: int) -> list[np.memmap]:
    """For every row the first (catalogue, row) that has its id, as one number; the first catalogue needs no map."""
    maps = [np.zeros(0, np.int64)] + [
        allocate_array(_path(folder, number), np.int64, catalogues[number][0].rows)
        for number in range(1, len(catalogues))
    ]
    ids = os.path.join(folder, "ids")
    for bucket in range(count):
        table = read_partition(ids, bucket)
        if table is None:
            continue
        key = table.column("key").to_numpy()
        codes = table.column("id").combine_chunks().dictionary_encode().indices.to_numpy()
        # Rows came catalogue by catalogue, so the first of equal ids is their owner.
        first = np.unique(codes, return_index=True)[1]
        owner = key[first[codes]]
        for number in range(1, len(maps)):
            mine = key >> _ROW_BITS == number
            maps[number][_row(key[mine])] = owner[mine]
        os.unlink(os.path.join(ids, f"{bucket:06d}.arrow"))
    os.rmdir(ids)
    return maps


def _row(key: np.ndarray) -> np.ndarray:
    return key & ((1 << _ROW_BITS) - 1)


def _positions(maps: list[np.memmap], number: int, total: int) -> tuple[int, bool]:
    """Owners become positions, in place; those of the catalogues before are known. Returns the union's length so far."""
    last, in_order = -1, True
    for start in range(0, len(maps[number]), ROWS_AT_ONCE):
        owner = np.array(maps[number][start : start + ROWS_AT_ONCE])
        whose, row = owner >> _ROW_BITS, _row(owner)
        position = np.where(whose == 0, row, -1)
        for other in range(1, number):
            theirs = whose == other
            position[theirs] = maps[other][row[theirs]]
        new = whose == number
        position[new] = total + np.arange(new.sum())
        total += int(new.sum())
        in_order = in_order and bool(np.all(np.diff(position, prepend=last) > 0))
        last = int(position[-1])
        maps[number][start : start + ROWS_AT_ONCE] = position
    maps[number].flush()
    return total, in_order
