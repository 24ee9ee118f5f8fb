"""The files of a plan's rows: one for each table part, with a row group for each snippet."""

import contextlib
import functools
import hashlib
import io
import os
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.errors import UserError, is_out_of_reach, one_line
from beam_zoo.storage.files import for_arrow, is_object, publish, read_bytes


def rows_file(folder: str, part: int) -> str:
    """Path of the rows of a table part."""
    return os.path.join(folder, f"{part:06d}.parquet")


def read_part(folder: str, part: int) -> pa.Table:
    """The rows of a table part, in order.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    with _reading(rows_file(folder, part)) as path:
        return pq.read_table(for_arrow(path))


def read_snippet(folder: str, part: int, group: int) -> pa.Table:
    """The rows of a snippet, in order.

    Args:
        folder: of the files.
        part: number of the table part.
        group: number of the snippet within it.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    with _reading(rows_file(folder, part)) as path:
        source = io.BytesIO(read_object(path)) if is_object(path) else path
        with pq.ParquetFile(source) as file:
            return file.read_row_group(group)


def read_schema(folder: str) -> pa.Schema:
    """The columns of all files.

    Raises:
        UserError: the first file cannot be read, or is damaged.
    """
    with _reading(rows_file(folder, 0)) as path:
        return pq.read_schema(for_arrow(path))


@functools.lru_cache(maxsize=8)
def read_object(path: str) -> bytes:
    """All bytes of a file of rows in a bucket; cached, since content-addressed files never change."""
    return read_bytes(path)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[str]:
    try:
        yield path
    except (OSError, pa.ArrowException) as error:
        if is_out_of_reach(error):
            raise UserError(f"cannot read the plan's {path}: {one_line(error, 200)}") from None
        raise UserError(
            f"the plan's {path} is damaged ({one_line(error, 200)}): restore it, or use another --output"
        ) from None


class Slices:
    """Splits a stream of batches into tables of one size; the last may be smaller.

    Args:
        columns: those to keep.
        size: rows of a table.
    """

    def __init__(self, columns: Iterable[str], size: int) -> None:
        self._columns, self._size = list(columns), size
        self._pending: list[pa.RecordBatch] = []
        self._waiting = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """Add the next rows; yields the tables that are complete."""
        self._pending.append(batch.select(self._columns))
        self._waiting += len(batch)
        if self._waiting >= self._size:
            yield from self._cut(self._waiting - self._waiting % self._size)

    def rest(self) -> Iterator[pa.Table]:
        """The last table."""
        if self._waiting:
            yield from self._cut(self._waiting)

    def _cut(self, rows: int) -> Iterator[pa.Table]:
        table = pa.Table.from_batches(self._pending)
        self._pending = table.slice(rows).to_batches()
        self._waiting -= rows
        for start in range(0, rows, self._size):
            yield table.slice(start, min(self._size, rows - start))


class CarriedDigest:
    """SHA-256 of the carried columns' names, types and values; it does not depend on the batches' sizes.

    Args:
        carried: their names.
        size: rows that are hashed at a time.
    """

    def __init__(self, carried: tuple[str, ...], size: int) -> None:
        self._slices = Slices(carried, size) if carried else None
        self._digest = hashlib.sha256()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the next rows."""
        for table in self._slices.add(batch) if self._slices else ():
            self._hash(table)

    def finish(self) -> str:
        """The digest in hexadecimal; empty if nothing is carried."""
        if self._slices is None:
            return ""
        for table in self._slices.rest():
            self._hash(table)
        return self._digest.hexdigest()

    def _hash(self, table: pa.Table) -> None:
        # With types as the plan's files have them, so that columns read from a plan have the same digest.
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        stored = pq.read_table(pa.BufferReader(sink.getvalue()))
        for name, column in zip(stored.column_names, stored.columns, strict=True):
            self._digest.update(f"{name}\0{column.type}\0".encode())
            self._digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
            values = column.drop_null().combine_chunks()
            if pa.types.is_primitive(values.type) and not pa.types.is_temporal(values.type):
                self._digest.update(values.to_numpy(zero_copy_only=False).tobytes())
            elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
                self._digest.update(pd.util.hash_array(values.to_numpy(zero_copy_only=False)).tobytes())
            else:
                self._digest.update(str(values.to_pylist()).encode())


class RowWriter:
    """Writes rows as a plan's files: one for each table part, with a row group for each snippet.

    Args:
        folder: made if absent.
        columns: those to keep.
        snippet_size: rows of a snippet.
        snippets_per_table: snippets of a table part.
    """

    def __init__(
        self, folder: str, columns: Iterable[str], *, snippet_size: int, snippets_per_table: int
    ) -> None:
        self._folder, self._snippet_size, self._snippets = folder, snippet_size, snippets_per_table
        self._slices = Slices(columns, snippet_size)
        self._part: list[pa.Table] = []
        self._parts = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the next rows."""
        for table in self._slices.add(batch):
            self._write(table)

    def close(self) -> None:
        """Write what is left."""
        for table in self._slices.rest():
            self._write(table)
        self._write_part()

    def _write(self, snippet: pa.Table) -> None:
        self._part.append(snippet)
        if len(self._part) == self._snippets:
            self._write_part()

    def _write_part(self) -> None:
        if not self._part:
            return
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, self._part[0].schema, compression="zstd") as file:
            for snippet in self._part:
                file.write_table(snippet, row_group_size=self._snippet_size)
        # The folder is content-addressed: every writer of this file writes the same bytes.
        publish(rows_file(self._folder, self._parts), sink.getvalue(), replace=True)
        self._part, self._parts = [], self._parts + 1
