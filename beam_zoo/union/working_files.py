"""Rows dealt out to numbered files, in the order in which they come: joins and new orders in bounded memory."""

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from beam_zoo.storage.files import storage

BUFFER = 128 * 2**20
"""Bytes that wait in memory for their files. Every full buffer opens every file once, so it must not be small."""


class PartitionWriter:
    """Deals rows out to files `000000.arrow`, ... of a folder; all rows of a bucket keep their order.

    Nothing here is durable, nor meant to be: it is in a command's own working folder.

    Args:
        folder: made if absent.
        buffer: bytes of rows to hold before they are written.
    """

    def __init__(self, folder: str, buffer: int = BUFFER) -> None:
        with storage(folder):
            os.makedirs(folder, exist_ok=True)
        self._folder, self._buffer = folder, buffer
        self._waiting: dict[int, list[pa.Table]] = {}
        self._bytes = 0

    def add(self, numbers: np.ndarray, table: pa.Table) -> None:
        """Take rows.

        Args:
            numbers: the bucket of every row, shape (row,).
            table: the rows; the same columns in every call.
        """
        if not len(table):
            return
        order = np.argsort(numbers, kind="stable")
        dealt = table.take(pa.array(order))
        ordered = np.asarray(numbers)[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        for start, stop in zip(starts, [*starts[1:], len(ordered)], strict=True):
            self._waiting.setdefault(int(ordered[start]), []).append(dealt.slice(start, stop - start))
        self._bytes += dealt.nbytes
        if self._bytes >= self._buffer:
            self._flush()

    def close(self) -> None:
        """Write what waits."""
        self._flush()

    def _flush(self) -> None:
        for number, tables in sorted(self._waiting.items()):
            table = pa.concat_tables(tables).combine_chunks()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            path = partition_path(self._folder, number)
            with storage(path), open(path, "ab") as file:
                file.write(sink.getvalue())
        self._waiting, self._bytes = {}, 0


def partition_path(folder: str, number: int) -> str:
    """Where a bucket's rows are."""
    return os.path.join(folder, f"{number:06d}.arrow")


def read_partition(folder: str, number: int) -> pa.Table | None:
    """All rows of a bucket, in the order in which they came, or None if there are none."""
    path = partition_path(folder, number)
    if not os.path.exists(path):
        return None
    return pa.concat_tables(_streams(path))


def _streams(path: str) -> Iterator[pa.Table]:
    """Every flush has appended a whole stream."""
    with pa.OSFile(path) as file:
        while file.tell() < file.size():
            yield pa.ipc.open_stream(file).read_all()
