"""The tables of an output: their columns, and how a contiguous range of the catalogue becomes their part files."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.images.failure import Failure
from beam_zoo.members import schema as schemas
from beam_zoo.members.member import Member
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage.files import publish, read_json, remove, size, write_json
from beam_zoo.storage.layout import ADVANCED, FAILURES, FRIENDLY, report_file, table_file
from beam_zoo.tables.statistics import Tree, value_tables

FAILURE_SCHEMA = pa.schema(
    [
        pa.field("id_str", pa.string()),
        pa.field("file_loc", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("may_pass", pa.bool_()),
    ]
)


class TablePlan(Protocol):
    """What the tables need to know: of one run (a Plan) or of several."""

    @property
    def command(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def members(self) -> tuple[Member, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def tables_fingerprint(self) -> str: ...
    @property
    def interval(self) -> str: ...
    def table_rows(self, part: int) -> range:
        """Rows of a table part."""

    def read_table_rows(self, output: str, part: int) -> pa.Table:
        """`id_str`, `file_loc` and the carried columns of a table part's galaxies, in order."""


class Statistics:
    """Which numbers the tables of a plan hold, and in which columns.

    Attributes:
        friendly: names of the friendly table's number columns.
        advanced: names of the advanced table's number columns.
    """

    def __init__(self, plan: TablePlan) -> None:
        self._tree: Tree | None = None
        if plan.kind == "tree":
            schema = plan.members[0].schema
            assert schema is not None
            self._tree = Tree(
                schemas.make_schema(schema["question_answer_pairs"], schema["dependencies"]), plan.interval
            )
        self.friendly, self.advanced = column_names(plan.kind, plan.outputs)

    def compute(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of both tables.

        Args:
            samples: shape (galaxy, sample, output).

        Returns:
            Friendly, shape (galaxy, column), and advanced, shape (galaxy, column); float32.
        """
        if self._tree is not None:
            tree = self._tree.tables(samples)
            columns = (tree.fraction, tree.lower, tree.upper, tree.asked)
            return tree.masked_fraction, _side_by_side(columns)
        values = value_tables(samples)
        return values.mean, _side_by_side((values.mean, values.std, values.lower, values.upper))


def column_names(kind: str, outputs: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names of the number columns of the friendly and of the advanced table."""
    if kind == "tree":
        endings: tuple[str, ...] = ("_fraction", "_90pc-lower", "_90pc-upper", "_proportion-asked")
    else:
        stem = "_probability" if kind == "classifier" else ""
        endings = (stem, f"{stem}_std", f"{stem}_90pc-lower", f"{stem}_90pc-upper")
    names = list(outputs)
    return [name + endings[0] for name in names], [name + ending for name in names for ending in endings]


def _side_by_side(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """(galaxy, output) arrays, the columns of an output beside each other."""
    return np.stack(columns, axis=-1).reshape(len(columns[0]), -1)


@dataclasses.dataclass(frozen=True)
class Block:
    """Some galaxies of one table part, summarised: what is grouped to write the part.

    Attributes:
        rows: catalogue rows, int64, shape (galaxy,).
        ids: their ids, as the parts have them.
        friendly, advanced: float32, shape (galaxy, column).
        failures: (row, id, failure) of galaxies without a prediction.
        incomplete: bool, shape (galaxy,): whether it lacks samples that others have.
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
    blocks: list[Block],
    read: list[dict[str, Any]],
    statistics: Statistics,
) -> dict[str, Any]:
    """Write one part of each table: the same bytes whenever the same samples are stored.

    Args:
        plan: what the tables are of.
        output: folder of the output.
        part: number of the table part.
        blocks: all of its galaxies, in any order.
        read: the files that they came from.
        statistics: the columns.

    Returns:
        The part's report, as it is also stored for the manifest: rows, failures and checksums.

    Raises:
        ValueError: the galaxies are not exactly those of the catalogue's rows of this part.
    """
    rows = plan.table_rows(part)
    table = plan.read_table_rows(output, part)
    failures = sorted((f for block in blocks for f in block.failures), key=lambda f: f[0])
    found = np.concatenate([*(block.rows for block in blocks), np.array([f[0] for f in failures], np.int64)])
    if len(found) != len(rows) or not np.array_equal(np.sort(found), np.arange(rows.start, rows.stop)):
        raise ValueError(f"table part {part} has {len(found)} of {len(rows)} galaxies, or another one's")
    order = np.argsort(found[: len(found) - len(failures)])
    chosen = table.take(pa.array(found[order] - rows.start))
    ids = [galaxy for block in blocks for galaxy in block.ids]
    if [ids[i] for i in order] != chosen.column(ID).to_pylist():
        raise ValueError(f"table part {part}: samples have other ids than the plan")
    # Until all of its files are written, a table part has no report: it would be of other files.
    remove_reports(output, part)
    files: dict[str, dict[str, Any]] = {}
    if plan.command != "represent":
        carried = chosen.drop_columns([LOCATION])
        for folder, names in ((FRIENDLY, statistics.friendly), (ADVANCED, statistics.advanced)):
            numbers = np.concatenate([getattr(block, folder) for block in blocks])[order]
            files[folder] = _write(output, folder, part, _join(carried, names, numbers))
    failed = _failures_table(table, rows, failures)
    # One file says what the columns are even if nothing failed.
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
        "incomplete": sum(int(block.incomplete.sum()) for block in blocks),
        "files": files,
        "parts": read,
    }
    write_json(report_path(output, part), report)
    return report


def remove_reports(output: str, *parts: int) -> None:
    """From here to their new reports these table parts are to be built again."""
    remove(*(report_path(output, part) for part in parts))


def report_path(output: str, part: int) -> str:
    """Where the report of a table part is."""
    return os.path.join(output, report_file(part))


def load_report(output: str, part: int) -> dict[str, Any]:
    """The report of a table part that was just written."""
    return read_json(report_path(output, part))


def read_report(plan: Plan, output: str, part: int, refs: list[PartRef]) -> dict[str, Any] | None:
    """The report of a table part, or None if the part is to be built (again).

    It stands if it was built with these carried columns from just these parts, and its files are there.

    Args:
        plan: the plan of the run.
        output: folder of the output.
        part: number of the table part.
        refs: all stored parts of its snippets.
    """
    try:
        report = load_report(output, part)
        sizes = [size(os.path.join(output, f["name"])) == f["bytes"] for f in report["files"].values()]
    except (OSError, ValueError):
        return None
    read = {file["name"] for file in report["parts"]}
    expected = {f"{folder}/{ref.name}" for folder in parts.folders(plan) for ref in refs}
    same = report["tables"] == plan.tables_fingerprint and read == expected
    return report if same and all(sizes) else None


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
