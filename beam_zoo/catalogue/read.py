"""Reads catalogues as batches of normalised rows, in order; what cannot be read is a one-line error."""

import dataclasses
import fnmatch
import glob
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.catalogue.csv_files import cast_csv, csv_batches, csv_header, narrow_types
from beam_zoo.errors import UserError, did_you_mean, near_path, one_line
from beam_zoo.storage import files, gcs
from beam_zoo.storage.stamps import FileStamp, stamp

ID, LOCATION = "id_str", "file_loc"
BATCH_ROWS = 65_536
READ_AT_ONCE = 1 << 20
"""Bytes of a column of a local Parquet file that are buffered."""
MOST_OBJECTS = 100_000
"""A folder of a bucket with more objects is taken for one of images: the catalogue in it must be named."""
_ENDINGS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv"}


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """A catalogue's files.

    Attributes:
        location: the path, folder or glob that the user gave.
        files: its files, in the order in which they are read.
        kind: `parquet` or `csv`.
        folder: the folder that relative image paths start from by default.
    """

    location: str
    files: tuple[str, ...]
    kind: str
    folder: str

    def stamps(self) -> tuple[FileStamp, ...]:
        """Of every file; the same while no file is changed."""
        stamps = []
        for file in self.files:
            with _one_line_errors(file):
                stamps.append(stamp(file))
        return tuple(stamps)

    def require(self, carry: tuple[str, ...] = ()) -> None:
        """Refuse a catalogue without these columns, before its rows are read.

        Args:
            carry: names of columns beside `id_str` and `file_loc`.

        Raises:
            UserError: a file cannot be read, lacks a column, has two of the name, or one of another type.
        """
        schemas = [self._schema(file) for file in self.files]
        for name in (ID, LOCATION, *carry):
            for file, schema in zip(self.files, schemas, strict=True):
                if (count := schema.names.count(name)) != 1:
                    what = f"has no column {name!r}{did_you_mean(name, schema.names)}"
                    raise UserError(f"{file} {what if not count else f'has two columns named {name!r}'}")
        for name in carry:
            self._carried_type(name, schemas)

    def _carried_type(self, name: str, schemas: list[pa.Schema]) -> pa.DataType:
        """The type of a carried column, the same in every file but those where it is all null."""
        found: dict[pa.DataType, str] = {}
        for file, schema in zip(self.files, schemas, strict=True):
            found.setdefault(schema.field(name).type, file)
        if len(found) > 1:
            found.pop(pa.null(), None)
        (kind, file), *others = found.items()
        if others:
            raise UserError(
                f"column {name!r} is of type {kind} in {file} and {others[0][0]} in {others[0][1]}: "
                "make them the same, or do not carry it"
            )
        return kind

    def _schema(self, file: str) -> pa.Schema:
        with _one_line_errors(file):
            if self.kind == "parquet":
                return pq.read_schema(files.stream_for_arrow(file))
            return pa.schema([pa.field(name, pa.string()) for name in csv_header(file)])

    def batches(self, carry: tuple[str, ...] = ()) -> Iterator[pa.RecordBatch]:
        """Rows in order: `id_str` and `file_loc` (strings, null where missing), then the columns of `carry`.

        Raises:
            UserError: a file cannot be read, or a column has a type that it must not have.
        """
        wanted = [ID, LOCATION, *carry]
        if self.kind == "csv":
            types = self._csv_types(carry) if carry else {}
        else:
            schemas = [self._schema(file) for file in self.files] if carry else []
            types = {name: self._carried_type(name, schemas) for name in carry}
        for file in self.files:
            with _one_line_errors(file):
                if self.kind == "csv":
                    for batch in csv_batches(file, wanted, LOCATION):
                        yield _normalise(batch, file, {n: cast_csv(batch.column(n), types[n]) for n in carry})
                    continue
                with _open_parquet(file) as parquet:
                    for batch in _parquet_batches(parquet, wanted):
                        yield _normalise(batch, file, {n: _of_type(batch.column(n), types[n]) for n in carry})

    def _csv_types(self, carry: tuple[str, ...]) -> dict[str, pa.DataType]:
        """The first of int64, float64 and string that all cells of a CSV column fit; empty ones are null."""
        types: dict[str, pa.DataType] = dict.fromkeys(carry, pa.int64())
        for file in self.files:
            with _one_line_errors(file):
                narrow_types(file, types)
        return types


def find(location: str) -> Catalogue:
    """The catalogue's files: one file, all of a folder (and its sub-folders), or all that a glob matches.

    Raises:
        UserError: there is nothing there, or it is not Parquet or CSV.
    """
    if files.is_remote(location):
        return _find_objects(location)
    if os.path.isdir(location):
        folder = location
        found = glob.glob(os.path.join(glob.escape(location), "**", "*"), recursive=True)
        hidden = [p for p in found if any(n[0] in "._" for n in os.path.relpath(p, location).split(os.sep))]
        paths = sorted(path for path in set(found) - set(hidden) if not _in_an_output(path, location))
    elif glob.has_magic(location) and not os.path.exists(location):
        paths = sorted(glob.glob(location, recursive=True))
        folder = os.path.dirname(location)
        while glob.has_magic(folder):
            folder = os.path.dirname(folder)
    else:
        if not os.path.exists(location):
            raise UserError(f"there is no catalogue {location}{near_path(location)}")
        paths, folder = [location], os.path.dirname(location)
        if _kind(location) is None:
            raise UserError(f"catalogue {location} must end in .parquet or .csv")
    found = [os.path.abspath(path) for path in paths if os.path.isfile(path)]
    return _of_one_kind(location, found, os.path.abspath(folder or "."))


def _of_one_kind(location: str, paths: list[str], folder: str) -> Catalogue:
    paths = [path for path in paths if _kind(path)]
    kinds = {_kind(path) for path in paths}
    if len(kinds) != 1:
        what = (
            "no .parquet or .csv file" if not kinds else "both Parquet and CSV files: name one kind by a glob"
        )
        raise UserError(f"catalogue {location} holds {what}")
    return Catalogue(location, tuple(paths), str(kinds.pop()), folder)


def _find_objects(location: str) -> Catalogue:
    """A catalogue in a bucket: an object, those whose names match a glob, or all directly in a folder.

    Sub-folders are searched only if a glob says so: they may hold millions of images.
    """
    if not files.is_object(location):
        raise UserError(f"catalogue {location}: only local ones and gs:// are read")
    with _one_line_errors(location):
        if _kind(location) and files.exists(location):
            return _of_one_kind(location, [location], os.path.dirname(location))
        folder = location.rstrip("/") if not glob.has_magic(location) else os.path.dirname(location)
        pattern = location if glob.has_magic(location) else f"{folder}/*"
        while glob.has_magic(folder):
            folder = os.path.dirname(folder)
        paths = sorted(_matching(folder, pattern.removeprefix(f"{folder}/").split("/")))
    if not paths:
        raise UserError(f"there is no catalogue {location}")
    return _of_one_kind(location, paths, folder)


def _matching(folder: str, patterns: list[str]) -> Iterator[str]:
    """Objects below a folder whose names match a pattern for each level; `**` is any number of folders."""
    first, *rest = patterns
    deep = first == "**"
    if deep and rest:
        yield from _matching(folder, rest)
    for name in gcs.names(folder, MOST_OBJECTS):
        inside, is_folder = name.rstrip("/"), name.endswith("/")
        if inside[:1] in (".", "_") or not (deep or fnmatch.fnmatchcase(inside, first)):
            continue
        if is_folder and (deep or rest):
            yield from _matching(f"{folder}/{inside}", patterns if deep else rest)
        elif not is_folder and not rest:
            yield f"{folder}/{inside}"


def _in_an_output(path: str, catalogue: str) -> bool:
    """Whether a file belongs to an output of this program that lies inside the catalogue's folder."""
    folder = os.path.dirname(path)
    while len(folder) > len(catalogue.rstrip(os.sep)):
        if os.path.isfile(os.path.join(folder, "_plan", "plan.json")):
            return True
        folder = os.path.dirname(folder)
    return False


def _kind(file: str) -> str | None:
    return _ENDINGS.get(os.path.splitext(file)[1].lower())


class _one_line_errors:
    """Turns what pyarrow raises about a file into one line that names it."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, pa.ArrowException | OSError | ValueError | UnicodeDecodeError):
            raise UserError(f"cannot read {self.file}: {one_line(error, 200)}") from None


def _open_parquet(file: str) -> pq.ParquetFile:
    """A Parquet file to read rows of: an object by whole row groups, a local file in small reads."""
    options = {} if files.is_object(file) else {"pre_buffer": False, "buffer_size": READ_AT_ONCE}
    return pq.ParquetFile(files.stream_for_arrow(file), **options)


def _parquet_batches(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows, some row groups at a time: else pyarrow keeps the compressed bytes of all until the end."""
    groups: list[int] = []
    rows = 0
    for group in range(file.num_row_groups):
        groups.append(group)
        rows += file.metadata.row_group(group).num_rows
        if rows >= BATCH_ROWS or group == file.num_row_groups - 1:
            yield from file.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns)
            groups, rows = [], 0


def _of_type(column: pa.Array, to: pa.DataType) -> pa.Array:
    return column if column.type == to else pa.nulls(len(column), to)


def _normalise(batch: pa.RecordBatch, file: str, carried: dict[str, pa.Array]) -> pa.RecordBatch:
    columns = [_text(batch.column(ID), ID, file), _text(batch.column(LOCATION), LOCATION, file)]
    others = [_without_view(column) for column in carried.values()]
    return pa.RecordBatch.from_arrays([*columns, *others], [ID, LOCATION, *carried])


def _without_view(column: pa.Array) -> pa.Array:
    """Views as plain strings or bytes: pyarrow cannot take rows of a column of string views yet."""
    if column.type == pa.string_view():
        return column.cast(pa.string())
    return column.cast(pa.binary()) if column.type == pa.binary_view() else column


def _text(column: pa.Array, name: str, file: str) -> pa.Array:
    """A column as strings, exactly as written; integers in decimal; floats are refused."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    integer_id = name == ID and pa.types.is_integer(kind)
    if not (
        integer_id or pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
    ):
        hint = (
            ": a float cannot hold every id; save it as text"
            if pa.types.is_floating(kind)
            else ": save it as text"
        )
        if pa.types.is_null(kind):
            hint = ": it is empty"
        raise UserError(f"column {name!r} of {file} is of type {kind}{hint}")
    return column.cast(pa.string())


def limited(batches: Iterator[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """The first `limit` rows, or all."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        yield batch.slice(0, left)
        left -= len(batch)
