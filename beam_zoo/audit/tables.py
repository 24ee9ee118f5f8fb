"""The audit of tables: friendly, advanced and failures say what the stored samples and the plan say."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.audit.audit import Findings, TablePart
from beam_zoo.audit.numbers import NumberChecks, plain_numbers
from beam_zoo.audit.parts import differences
from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.errors import one_line
from beam_zoo.images.failure import Failure
from beam_zoo.storage.files import exists, read_bytes
from beam_zoo.storage.layout import ADVANCED, FAILURES, FRIENDLY, TABLES, table_file
from beam_zoo.tables.gather import GALAXIES_AT_ONCE
from beam_zoo.tables.tables import FAILURE_SCHEMA, Statistics, TablePlan


@dataclasses.dataclass
class Gathered:
    """What a table part must hold, by the plan and the stored parts.

    Attributes:
        rows: `id_str`, `file_loc` and the carried columns of its galaxies, in the order of the plan.
        ids: of all its galaxies.
        predicted: rows of the galaxies that have samples, ascending, int64, shape (galaxy,).
        failures: row of a galaxy without samples -> the failures that the parts tell of it.
        unknown: ids of galaxies of which damaged parts leave unknown what became of them.
        numbers: unless of `represent`: table -> its numbers, float32, shape (galaxy, column), of `predicted`.
        plain: the first number of every output by another way: float64, shape (galaxy, output).
    """

    rows: pa.Table
    ids: list[str]
    predicted: np.ndarray
    failures: dict[int, list[Failure]]
    unknown: set[str]
    numbers: dict[str, np.ndarray]
    plain: np.ndarray


class Summaries:
    """Gathers the tables' numbers, many galaxies at once: samples need not be kept.

    Args:
        plan: what the tables are of.
        statistics: the tables' columns.
    """

    def __init__(self, plan: TablePlan, statistics: Statistics) -> None:
        self._plan, self._statistics = plan, statistics
        widths = {FRIENDLY: len(statistics.friendly), ADVANCED: len(statistics.advanced)}
        self._blocks = {folder: [np.zeros((0, width), np.float32)] for folder, width in widths.items()}
        self._plain = [np.zeros((0, len(plan.outputs)))]

    def add(self, samples: np.ndarray) -> None:
        """Take galaxies' samples, float32, shape (galaxy, sample, output)."""
        for begin in range(0, len(samples), GALAXIES_AT_ONCE):
            some = samples[begin : begin + GALAXIES_AT_ONCE]
            with np.errstate(all="ignore"):  # damaged samples are findings of their own
                friendly, advanced = self._statistics.compute(some)
                self._plain.append(plain_numbers(self._plan, some))
            self._blocks[FRIENDLY].append(friendly)
            self._blocks[ADVANCED].append(advanced)

    def numbers(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """`Gathered.numbers` and `Gathered.plain` of all galaxies, in the order in which they came."""
        numbers = {folder: np.concatenate(some) for folder, some in self._blocks.items()}
        return numbers, np.concatenate(self._plain)


class TableChecks:
    """Checks of a table part's files.

    Args:
        plan: what the tables are of.
        output: folder of the output.
        statistics: the tables' columns.
    """

    def __init__(self, plan: TablePlan, output: str, statistics: Statistics) -> None:
        self._plan, self._output, self._statistics = plan, output, statistics

    def check(self, task: TablePart, gathered: Gathered, findings: Findings) -> int:
        """Check the files of a table part against what they must hold.

        Returns:
            The number of files.
        """
        if self._plan.command != "represent":
            checks = NumberChecks(self._plan, self._statistics, findings)
            ids = [gathered.ids[row] for row in gathered.predicted.tolist()]
            found = {f: self._numbers(f, task, gathered, findings) for f in (FRIENDLY, ADVANCED)}
            friendly, advanced = found.values()
            for folder, values in found.items():
                if values is not None:
                    checks.table(
                        folder, table_file(folder, task.number), values, ids, gathered.numbers, gathered.plain
                    )
            if friendly is not None and advanced is not None:
                checks.both(table_file(FRIENDLY, task.number), friendly, advanced, ids)
        self._failures(task, gathered, findings)
        return sum(name.split("/")[0] in TABLES for name in task.claims)

    def _numbers(
        self, folder: str, task: TablePart, gathered: Gathered, findings: Findings
    ) -> np.ma.MaskedArray | None:
        """Numbers of a table, aligned to the galaxies that were predicted, masked where one has no row."""
        file = table_file(folder, task.number)
        names = getattr(self._statistics, folder)
        carried = gathered.rows.drop_columns([LOCATION])
        schema = pa.schema([*carried.schema, *(pa.field(name, pa.float32()) for name in names)])
        table = _read(self._output, file, task, schema, findings)
        if table is None:
            return None
        index = _align(file, table, gathered, gathered.predicted, "it failed", findings)
        there = np.flatnonzero(index >= 0)
        ids = [gathered.ids[row] for row in gathered.predicted[there].tolist()]
        for name in carried.column_names[1:]:
            ours = table.column(name).take(pa.array(index[there]))
            theirs = carried.column(name).take(pa.array(gathered.predicted[there]))
            if not ours.equals(theirs):
                findings.some(file, differences(name, ids, ours.to_pylist(), theirs.to_pylist()))
        nulls = [name for name in names if table.column(name).null_count]
        findings.some(file, (f"{name} has nulls" for name in nulls))
        values = np.ma.masked_all((len(index), len(names)), np.float32)
        for column, name in enumerate(names):
            values[there, column] = table.column(name).to_numpy()[index[there]]
        return values

    def _failures(self, task: TablePart, gathered: Gathered, findings: Findings) -> None:
        file = table_file(FAILURES, task.number)
        there = file in task.claims or exists(os.path.join(self._output, file))
        # One file says what the columns are even if nothing failed.
        if not gathered.failures and task.number and not there:
            return
        table = _read(self._output, file, task, FAILURE_SCHEMA, findings)
        if table is None:
            return
        failed = np.array(list(gathered.failures), np.int64)
        index = _align(file, table, gathered, failed, "it was predicted", findings)
        locations = gathered.rows.column(LOCATION)
        found = table.to_pylist()
        findings.some(file, _wrong_failures(gathered, failed, index, found, locations))


def check_files(output: str, task: TablePart, findings: Findings) -> None:
    """Check the files of a table part against the manifest alone, where nothing says what they must hold."""
    for folder in TABLES:
        file = table_file(folder, task.number)
        there = file in task.claims or exists(os.path.join(output, file))
        if there or folder != FAILURES:
            _read(output, file, task, None, findings)


def _read(
    output: str, file: str, task: TablePart, schema: pa.Schema | None, findings: Findings
) -> pa.Table | None:
    """A table's part, if it can be read and has the right columns; against the manifest."""
    claim = task.claims.get(file)
    if claim is None:
        findings.add(file, "is not listed in manifest.json")
    try:
        data = read_bytes(os.path.join(output, file))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        findings.add(file, "is missing" if missing else f"cannot be read ({error.strerror})")
        return None
    found: dict[str, Any] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True, use_threads=False)
        table.validate(full=True)
    except Exception as error:
        findings.add(file, f"is damaged ({one_line(error, 200)})")
        table = None
    else:
        found["rows"] = table.num_rows
    for key, value in found.items():
        if claim is not None and claim.get(key) != value:
            findings.add(file, f"{key}: manifest.json says {claim.get(key)!r}, found {value!r}")
    if table is None or schema is None or table.schema.equals(schema):
        return table
    findings.some(file, _other_columns(table.schema, schema))
    return None


def _other_columns(found: pa.Schema, right: pa.Schema) -> Iterator[str]:
    for name in right.names:
        if found.names.count(name) != 1:
            yield f"has {'no' if name not in found.names else 'more than one'} column {name!r}"
        elif (kind := found.field(name).type) != right.field(name).type:
            yield f"column {name!r} is of type {kind}, and should be {right.field(name).type}"
    for name in found.names:
        if name not in right.names:
            yield f"column {name!r} does not belong there"
    if found.names != right.names and sorted(found.names) == sorted(right.names):
        yield "has its columns in another order"


def _align(
    file: str, table: pa.Table, gathered: Gathered, rows: np.ndarray, otherwise: str, findings: Findings
) -> np.ndarray:
    """Where the table has the galaxies that it should have: their first rows, or -1; what is amiss is found."""
    found = table.column(ID).to_pylist()
    wanted = [gathered.ids[row] for row in rows.tolist()]
    if found == wanted:
        return np.arange(len(wanted))
    where: dict[str, list[int]] = {}
    for row, galaxy in enumerate(found):
        where.setdefault(galaxy, []).append(row)
    ours, known = set(wanted), set(gathered.ids)
    findings.some(
        file,
        (f"galaxy {g!r} is a duplicate: it is in rows {rows}" for g, rows in where.items() if len(rows) > 1),
    )
    findings.some(
        file, (f"galaxy {g!r} is unknown to the plan of this part" for g in where if g not in known)
    )
    wrong = [g for g in where if g in known and g not in ours and g not in gathered.unknown]
    findings.some(file, (f"galaxy {g!r} is here, and {otherwise}" for g in wrong))
    findings.some(file, (f"galaxy {g!r} is missing" for g in wanted if g not in where))
    order = [g for g in where if g in ours]
    right = [g for g in wanted if g in where]
    swapped = [(g, r) for g, r in zip(order, right, strict=False) if g != r]
    if swapped:
        findings.add(
            file,
            f"{len(swapped):,} galaxies are not in the order of the plan, first {swapped[0][0]!r} in the place of "
            f"{swapped[0][1]!r}",
        )
    return np.array([where.get(g, [-1])[0] for g in wanted], np.int64)


def _wrong_failures(
    gathered: Gathered, failed: np.ndarray, index: np.ndarray, found: list[dict], locations: Any
) -> Iterator[str]:
    """Rows of the failures table that the parts do not tell of."""
    for row, place in zip(failed.tolist(), index.tolist(), strict=True):
        if place < 0:
            continue
        cells, galaxy = found[place], gathered.ids[row]
        if cells[LOCATION] != locations[row].as_py():
            yield f"galaxy {galaxy!r}: file_loc is {cells[LOCATION]!r}, and in the plan {locations[row].as_py()!r}"
        mine = (cells["stage"], cells["error"], cells["may_pass"])
        told = [(f.stage, f.error, f.may_pass) for f in gathered.failures[row]]
        if mine not in told:
            yield f"galaxy {galaxy!r}: {mine} is not the failure in its part, {told[0]}"
