"""Files in a command's working folder: rows partitioned over numbered files, and arrays mapped into memory.

With them, catalogues are joined and reordered in bounded memory. The files are neither durable nor a format:
the command that writes them reads and removes them.
"""

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from beam_zoo.storage.files import storage

BUFFER = 128 * 2**20
"""Bytes of rows kept in memory. Each time the buffer is full, the files of all partitions are opened."""


class PartitionWriter:
    """Writes rows to the files `000000.arrow`, ... of a folder; rows of a partition keep their order.

    Args:
        folder: made if absent.
        buffer: bytes of rows to keep in memory before they are written.
    """

    def __init__(self, folder: str, buffer: int = BUFFER) -> None:
        with storage(folder):
            os.makedirs(folder, exist_ok=True)
        self._folder, self._buffer = folder, buffer
        self._pending: dict[int, list[pa.Table]] = {}
        self._bytes = 0

    def add(self, partitions: np.ndarray, table: pa.Table) -> None:
        """Add rows.

        Args:
            partitions: the partition of each row, integers, shape (row,).
            table: the rows; all calls have the same columns.

        Raises:
            StorageFull: the disk or the quota is full.
        """
        if not len(table):
            return
        order = np.argsort(partitions, kind="stable")
        ordered, numbers = table.take(pa.array(order)), np.asarray(partitions)[order]
        starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
        for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
            self._pending.setdefault(int(numbers[start]), []).append(ordered.slice(start, stop - start))
        self._bytes += ordered.nbytes
        if self._bytes >= self._buffer:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are in memory; after this, the partitions can be read.

        Raises:
            StorageFull: the disk or the quota is full.
        """
        for number, tables in sorted(self._pending.items()):
            table = pa.concat_tables(tables).combine_chunks()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            path = partition_path(self._folder, number)
            with storage(path), open(path, "ab") as file:
                file.write(sink.getvalue())
        self._pending, self._bytes = {}, 0


def partition_path(folder: str, number: int) -> str:
    """Path of a partition's file."""
    return os.path.join(folder, f"{number:06d}.arrow")


def read_partition(folder: str, number: int) -> pa.Table | None:
    """All rows of a partition, in the order in which they were added; None if there are none."""
    path = partition_path(folder, number)
    if not os.path.exists(path):
        return None
    return pa.concat_tables(_read_streams(path))


def _read_streams(path: str) -> Iterator[pa.Table]:
    """Each flush has appended a complete stream."""
    with pa.OSFile(path) as file:
        while file.tell() < file.size():
            yield pa.ipc.open_stream(file).read_all()


def create_array(path: str, dtype: type[np.generic], rows: int) -> np.memmap:
    """Create a .npy file of zeros and map it into memory; its space is allocated, so no write to it fails.

    Args:
        path: the file.
        dtype: of its values.
        rows: their number.

    Raises:
        StorageFull: the disk or the quota is full.
        UserError: the file cannot be written.
    """
    with storage(path):
        mapped: np.memmap = np.lib.format.open_memmap(path, "w+", dtype, (rows,))
        # Otherwise the file is sparse, and the first access to a page on a full disk is a SIGBUS.
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return mapped
