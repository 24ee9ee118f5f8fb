"""CSV catalogues: cells are read as text; only carried columns get a type."""

import os
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from beam_zoo.errors import one_line
from beam_zoo.storage.files import open_read, stream_for_arrow

# Text with leading zeros, hexadecimal digits, or more digits than a float64 holds is a name, not a number.
_NAME_LIKE = r"^[+-]?(0[0-9]+|0[xX].*)$"
_TOO_MANY_DIGITS = r"^[+-]?[0-9]{16,}$"


def csv_header(file: str) -> list[str]:
    """Names of the columns.

    Raises:
        ValueError: it is not UTF-8.
    """
    with open_read(file) as raw:
        if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError("it is UTF-16 text: save it as UTF-8")
    options = pacsv.ParseOptions(newlines_in_values=True)
    with pacsv.open_csv(stream_for_arrow(file), parse_options=options) as reader:
        return reader.schema.names


def csv_batches(file: str, columns: list[str], unbroken: str) -> Iterator[pa.RecordBatch]:
    """Rows of a CSV file, as text.

    Args:
        file: its path.
        columns: those to read.
        unbroken: the one of them whose cells have no line breaks, unless a quotation mark is unclosed.

    Raises:
        ValueError: an unclosed quotation mark has swallowed rows.
    """
    header = csv_header(file)
    end = header[-1]  # in any other column an unclosed quotation mark swallows columns, which is an error
    extra = [end] if end not in columns and header.count(end) == 1 else []
    tail = ""
    with _open(file, columns, extra) as reader:
        for batch in reader:
            broken = batch.column(unbroken).filter(pc.match_substring(batch.column(unbroken), "\n"))
            if len(broken):
                raise ValueError(
                    f"{unbroken} {one_line(broken[0], 60)!r} has a line break: see its quotation marks"
                )
            if len(batch) and (extra or end in columns):
                last = batch.column(end)[-1].as_py()
                tail = last.decode(errors="replace") if isinstance(last, bytes) else last
            yield batch.select(columns)
    if "\n" in tail and not _last_bytes(file).rstrip(b"\r\n").endswith(b'"'):
        raise ValueError(f"the quotation mark before {one_line(tail, 60)!r} is not closed")


def narrow_types(file: str, types: dict[str, pa.DataType]) -> None:
    """Widen each column's type, from int64 to float64 to string, until its cells in this file fit."""
    with _open(file, list(types)) as reader:
        for batch in reader:
            for name in types:
                while not _fits(batch.column(name), types[name]):
                    types[name] = pa.float64() if types[name] == pa.int64() else pa.string()


def _fits(column: pa.Array, to: pa.DataType) -> bool:
    if to == pa.string():
        return True
    if pc.any(pc.match_substring_regex(column, _NAME_LIKE)).as_py():
        return False
    if to == pa.float64() and pc.any(pc.match_substring_regex(column, _TOO_MANY_DIGITS)).as_py():
        return False
    try:
        cast_csv(column, to)
    except pa.ArrowInvalid:
        return False
    return True


def cast_csv(column: pa.Array, to: pa.DataType) -> pa.Array:
    """Cells of text as a type that they fit; an empty one is null, unless the type is string."""
    if to == pa.string():
        return column
    empty = pc.equal(column, "")
    return pc.if_else(empty, None, column).cast(to)


def _open(file: str, columns: list[str], extra: Sequence[str] = ()) -> pacsv.CSVStreamingReader:
    # As text: a type that is inferred from the first rows would change 000001 to 1.
    return pacsv.open_csv(
        stream_for_arrow(file),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()) | dict.fromkeys(extra, pa.binary()),
            include_columns=[*columns, *extra],
            strings_can_be_null=False,
        ),
    )


def _last_bytes(file: str) -> bytes:
    with open_read(file) as raw:
        raw.seek(max(0, raw.seek(0, os.SEEK_END) - 64))
        return raw.read()
