"""A table part: a contiguous range of the catalogue as one file of each table."""

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
import pyarrow as pa

from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.images.failure import Failure
from beam_zoo.samples import parts
from beam_zoo.storage.files import publish, remove, write_json
from beam_zoo.storage.layout import ADVANCED, FAILURES, FRIENDLY, table_file
from beam_zoo.tables.columns import TableColumns, TablePlan
from beam_zoo.tables.reports import remove_reports, report_path

FAILURE_SCHEMA = pa.schema(
    [
        pa.field("id_str", pa.string()),
        pa.field("file_loc", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("may_pass", pa.bool_()),
    ]
)


@dataclasses.dataclass(frozen=True)
class TableRows:
    """Rows of one table part, in any order.

    Attributes:
        rows: rows of the tables, int64, shape (galaxy,).
        ids: their ids, as the parts have them.
        friendly, advanced: float32, shape (galaxy, column).
        failures: (row, id, failure) of galaxies without a prediction.
        incomplete: bool, shape (galaxy,): whether a galaxy lacks samples.
    """

    rows: np.ndarray
    ids: list[str]
    friendly: np.ndarray
    advanced: np.ndarray
    failures: list[tuple[int, str, Failure]]
    incomplete: np.ndarray


def write_table_part(
    plan: TablePlan,
    output: str,
    part: int,
    computed: list[TableRows],
    read: list[dict[str, Any]],
    columns: TableColumns,
) -> dict[str, Any]:
    """Write one part of each table: the same bytes whenever the same samples are stored.

    Args:
        plan: what the tables are of.
        output: folder of the output.
        part: number of the table part.
        computed: all of its rows, in any order.
        read: the files of the stored parts that they are from.
        columns: the number columns.

    Returns:
        The part's report, which is also stored: rows, failures and checksums.

    Raises:
        ValueError: the galaxies are not exactly those of the catalogue's rows of this part.
    """
    rows = plan.table_rows(part)
    table = plan.read_table_rows(output, part)
    failures = sorted((f for each in computed for f in each.failures), key=lambda f: f[0])
    found = np.concatenate([*(each.rows for each in computed), np.array([f[0] for f in failures], np.int64)])
    if len(found) != len(rows) or not np.array_equal(np.sort(found), np.arange(rows.start, rows.stop)):
        raise ValueError(f"table part {part} has {len(found)} of {len(rows)} galaxies, or another one's")
    order = np.argsort(found[: len(found) - len(failures)])
    chosen = table.take(pa.array(found[order] - rows.start))
    ids = [galaxy for each in computed for galaxy in each.ids]
    if [ids[i] for i in order] != chosen.column(ID).to_pylist():
        raise ValueError(f"table part {part}: samples have other ids than the plan")
    # A report of earlier files must not stand beside new ones.
    remove_reports(output, part)
    files: dict[str, dict[str, Any]] = {}
    if plan.command != "represent":
        carried = chosen.drop_columns([LOCATION])
        for folder, names in ((FRIENDLY, columns.friendly), (ADVANCED, columns.advanced)):
            numbers = np.concatenate([getattr(each, folder) for each in computed])[order]
            files[folder] = _write(output, folder, part, _join(carried, names, numbers))
    failed = _failures_table(table, rows, failures)
    # One part has a file even where nothing failed, so that readers find the columns.
    if len(failed) or part == 0:
        files[FAILURES] = _write(output, FAILURES, part, failed)
    else:
        remove(os.path.join(output, table_file(FAILURES, part)))
    report = {
        "part": part,
        "tables": plan.tables_fingerprint,
        "rows": len(rows),
        "predicted": len(rows) - len(failures),
        "failed": len(failures),
        "incomplete": sum(int(each.incomplete.sum()) for each in computed),
        "files": files,
        "parts": read,
    }
    write_json(report_path(output, part), report)
    return report


def _join(carried: pa.Table, names: list[str], numbers: np.ndarray) -> pa.Table:
    columns = np.ascontiguousarray(numbers.T)
    arrays = [*carried.columns, *(pa.array(column) for column in columns)]
    fields = [*carried.schema, *(pa.field(name, pa.float32()) for name in names)]
    return pa.table(arrays, schema=pa.schema(fields))


def _failures_table(table: pa.Table, rows: range, failures: list[tuple[int, str, Failure]]) -> pa.Table:
    locations = table.column(LOCATION)
    columns: list[list[Any]] = [[], [], [], [], []]
    for row, galaxy, failure in failures:
        location = locations[row - rows.start].as_py()
        cells = (galaxy, location, failure.stage, failure.error, failure.may_pass)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return pa.table(columns, schema=FAILURE_SCHEMA)


def _write(output: str, folder: str, part: int, table: pa.Table) -> dict[str, Any]:
    name = table_file(folder, part)
    data = parts.to_parquet(table, compression="snappy")
    publish(os.path.join(output, name), data, replace=True)
    digest = hashlib.sha256(data).hexdigest()
    return {"name": name, "rows": table.num_rows, "bytes": len(data), "sha256": digest}
