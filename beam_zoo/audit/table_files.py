"""The files of the tables: each is compared, column by column, with what it must hold."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.audit.compare import TOLERANCE, close, compare_columns, compare_listed, compare_schemas
from beam_zoo.audit.elements import Element
from beam_zoo.audit.expected import ExpectedTablePart, Questions
from beam_zoo.audit.findings import Findings
from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.errors import one_line
from beam_zoo.storage.files import read_bytes
from beam_zoo.storage.layout import FAILURES, TABLES, table_file
from beam_zoo.tables.statistics import ASKED_AT_LEAST
from beam_zoo.tables.tables import FAILURE_SCHEMA, TablePlan, column_names

SUM_TOLERANCE = 1e-5


class TableChecks:
    """Checks of the files of table parts.

    Args:
        plan: what the tables are of.
        output: folder of the output.
        questions: of a tree, as `Definitions` has them.
    """

    def __init__(self, plan: TablePlan, output: str, questions: Questions) -> None:
        self._plan, self._output, self._questions = plan, output, questions
        self._friendly, self._advanced = column_names(plan.kind, plan.outputs)

    def check(self, element: Element, expected: ExpectedTablePart, findings: Findings) -> int:
        """Compare the files of a table part with what they must hold.

        Returns:
            The number of the table part's files that the manifest lists.
        """
        friendly, advanced, failures = (table_file(table, element.number or 0) for table in TABLES)
        if self._plan.command != "represent":
            found = self._compare(advanced, self._advanced, element, expected, expected.numbers, findings)
            if found is not None:
                self._check_laws(advanced, expected, found, findings)
            right = self._masked_fractions(expected.numbers, found)
            self._compare(friendly, self._friendly, element, expected, right, findings)
        # The first file says what the columns are even if nothing failed.
        if expected.failures or element.number == 0 or failures in {*element.files, *element.listed}:
            self._compare_failures(failures, element, expected, findings)
        return sum(os.path.dirname(file) in TABLES for file in element.listed)

    def _compare(
        self,
        file: str,
        names: list[str],
        element: Element,
        expected: ExpectedTablePart,
        right: np.ndarray,
        findings: Findings,
    ) -> np.ma.MaskedArray | None:
        """Compare a table with its numbers, shape (galaxy, output, statistic); masked ones are not compared.

        Returns:
            The numbers that it has, masked where it lacks a galaxy; None if it cannot be read.
        """
        carried = expected.rows.drop_columns([LOCATION])
        schema = pa.schema([*carried.schema, *(pa.field(name, pa.float32()) for name in names)])
        table = _read(self._output, file, element, schema, findings)
        if table is None:
            return None
        there, table = _align(file, table, expected, expected.predicted, "it failed", findings)
        compare_columns(file, table, carried.take(pa.array(expected.predicted[there])), findings)
        findings.some(file, (f"{name} has nulls" for name in names if table.column(name).null_count))
        found = np.ma.masked_all((len(there), len(names)))
        found[there] = np.stack([table.column(name).to_numpy() for name in names], axis=1)
        right = np.ma.reshape(right, found.shape)
        wrong = ~close(found.data, np.ma.getdata(right))
        wrong &= ~(np.ma.getmaskarray(found) | np.ma.getmaskarray(right))
        findings.numbers(file, wrong, expected.predicted_ids, names, found.data, np.ma.getdata(right))
        outputs = len(self._plan.outputs)
        return found.reshape(len(found), outputs, len(names) // outputs)

    def _masked_fractions(self, numbers: np.ndarray, advanced: np.ma.MaskedArray | None) -> np.ndarray:
        """The friendly table's numbers: those of a tree are NaN where few are asked.

        A proportion asked so near to the limit that float32 noise, of another machine, decides is taken from the
        advanced table as it is stored; where that lacks it, the fraction is masked out: it is not compared.
        """
        fraction = numbers[..., 0]
        if self._plan.kind != "tree":
            return fraction
        asked = numbers[..., 3]
        known = np.zeros(asked.shape, bool)
        if advanced is not None:
            stored = advanced[..., 3]
            known = ~np.ma.getmaskarray(stored) & close(stored.data, asked)
            asked = np.where(known, stored.data, asked)
        edge = ~known & (np.abs(asked - ASKED_AT_LEAST) <= TOLERANCE)
        return np.ma.masked_array(np.where(asked >= ASKED_AT_LEAST, fraction, np.nan), edge)

    def _check_laws(
        self, file: str, expected: ExpectedTablePart, advanced: np.ma.MaskedArray, findings: Findings
    ) -> None:
        """Check what is true of the numbers of the advanced table whatever the samples are."""
        ids, names = expected.predicted_ids, np.reshape(self._advanced, advanced.shape[1:])
        tree = self._plan.kind == "tree"
        lower, upper = (1, 2) if tree else (2, 3)

        def check(wrong: Any, statistic: int, text: str) -> None:
            values = advanced.data[..., statistic]
            findings.numbers(file, wrong.filled(False), ids, names[:, statistic].tolist(), values, text)

        for statistic in range(4 if tree else 1):  # of a single sample there is no spread
            check(np.isnan(advanced[..., statistic]), statistic, "and must be a number")
        check(advanced[..., lower] > advanced[..., upper], lower, "and must not be above the upper bound")
        if self._plan.kind == "regressor":
            return
        for statistic in (0, lower, upper):
            values = advanced[..., statistic]
            check((values < 0) | (values > 1), statistic, "and must be from 0 to 1")
        for answers, _ in self._questions or [(slice(None), None)]:
            sums = advanced[:, answers, 0].sum(axis=1, keepdims=True)
            wrong = (np.abs(sums - 1) > SUM_TOLERANCE).filled(False)
            name = f"the sum of {', '.join(self._plan.outputs[answers])}"
            findings.numbers(file, wrong, ids, [name], sums.data, "and must be 1")

    def _compare_failures(
        self, file: str, element: Element, expected: ExpectedTablePart, findings: Findings
    ) -> None:
        table = _read(self._output, file, element, FAILURE_SCHEMA, findings)
        if table is None:
            return
        rows = np.array(list(expected.failures), np.int64)
        there, table = _align(file, table, expected, rows, "it was predicted", findings)
        right = expected.rows.select([ID, LOCATION]).take(pa.array(rows[there]))
        compare_columns(file, table, right, findings)

        def texts() -> Iterator[str]:
            for row, cells in zip(rows[there].tolist(), table.to_pylist(), strict=True):
                found = cells["stage"], cells["error"], cells["may_pass"]
                right = [(f.stage, f.error, f.may_pass) for f in expected.failures[row]]
                if found not in right:
                    yield f"galaxy {cells[ID]!r}: {found} is not the failure in its part, {right[0]}"

        findings.some(file, texts())


def check_readable(output: str, element: Element, findings: Findings) -> None:
    """Compare the files of a table part with the manifest alone, where nothing says what they must hold."""
    for table in TABLES:
        file = table_file(table, element.number or 0)
        if table != FAILURES or file in {*element.files, *element.listed}:
            _read(output, file, element, None, findings)


def _read(
    output: str, file: str, element: Element, schema: pa.Schema | None, findings: Findings
) -> pa.Table | None:
    """Read a part of a table, and compare it with the manifest; None if it is damaged or has other columns."""
    try:
        data = read_bytes(os.path.join(output, file))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        findings.add(file, "is missing" if missing else f"cannot be read ({error.strerror})")
        return None
    found: dict[str, Any] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    table = None
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True, use_threads=False)
        table.validate(full=True)
        found["rows"] = table.num_rows
    except Exception as error:
        findings.add(file, f"is damaged ({one_line(error, 200)})")
        table = None
    compare_listed(file, element, found, findings)
    right = table is None or schema is None or compare_schemas(file, table.schema, schema, findings)
    return table if right else None


def _align(
    file: str,
    table: pa.Table,
    expected: ExpectedTablePart,
    rows: np.ndarray,
    otherwise: str,
    findings: Findings,
) -> tuple[np.ndarray, pa.Table]:
    """Put a table's galaxies into the order of the plan; missing, foreign and misplaced ones are findings.

    Args:
        file: that the table is from.
        table: has `id_str`.
        expected: what the table part must hold.
        rows: rows of the galaxies that the table must have, int64, shape (galaxy,).
        otherwise: what became of the others.
        findings: takes the lines.

    Returns:
        Which of these galaxies the table has, bool, shape (galaxy,), and its rows of those, in order.
    """
    found, ids = table.column(ID).to_pylist(), expected.rows.column(ID).to_pylist()
    right = [ids[row] for row in rows.tolist()]
    if found == right:
        return np.ones(len(right), bool), table
    where: dict[str, list[int]] = {}
    for row, galaxy in enumerate(found):
        where.setdefault(galaxy, []).append(row)
    ours, known = set(right), set(ids)
    texts = [
        (f"galaxy {g!r} is a duplicate: it is in rows {rows}" for g, rows in where.items() if len(rows) > 1),
        (f"galaxy {g!r} is unknown to the plan of this part" for g in where if g not in known),
        (f"galaxy {g!r} is here, and {otherwise}" for g in where if g in known - ours - expected.unknown),
        (f"galaxy {g!r} is missing" for g in right if g not in where),
    ]
    for some in texts:
        findings.some(file, some)
    order, wanted = [g for g in where if g in ours], [g for g in right if g in where]
    swapped = [(g, place) for g, place in zip(order, wanted, strict=True) if g != place]
    if swapped:
        text = "galaxies are not in the order of the plan, first {!r} in the place of {!r}".format(
            *swapped[0]
        )
        findings.add(file, f"{len(swapped):,} {text}")
    return np.array([g in where for g in right], bool), table.take(
        pa.array([where[g][0] for g in wanted], pa.int64())
    )
