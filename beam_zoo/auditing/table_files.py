"""The files of the tables: each is compared, column by column, with what it must hold."""

import os
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.auditing.compare import TOLERANCE, close, compare_columns, compare_listed, compare_schemas
from beam_zoo.auditing.elements import Element
from beam_zoo.auditing.expected import ExpectedTablePart
from beam_zoo.auditing.findings import Findings
from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.storage.files import exists, read_bytes, sha256
from beam_zoo.storage.layout import TABLES, table_file
from beam_zoo.tables.columns import column_names
from beam_zoo.tables.statistics import ASKED_AT_LEAST
from beam_zoo.tables.write import FAILURE_SCHEMA

SUM_TOLERANCE = 1e-5


class TableFiles:
    """The files of a table part in the folder of an output; what is wrong goes to `findings`."""

    def __init__(self, output: str, element: Element, findings: Findings) -> None:
        self._output, self._element, self._findings = output, element, findings
        self._friendly, self._advanced, self._failures = (table_file(t, element.number or 0) for t in TABLES)
        # The first file says what the columns are even if nothing failed.
        there = {*element.files, *element.listed}
        self._may_lack_failures = element.number != 0 and self._failures not in there

    def read_all(self) -> None:
        """Compare the files with the manifest alone, where nothing says what they must hold."""
        for file in (self._friendly, self._advanced, *[self._failures] * (not self._may_lack_failures)):
            self._read(file, None)

    def compare(self, expected: ExpectedTablePart) -> int:
        """Compare the files with what they must hold.

        Returns:
            The number of these files that the manifest lists.
        """
        plan = expected.plan
        if plan.command != "represent":
            friendly, advanced = column_names(plan.kind, plan.outputs)
            numbers = expected.numbers
            found = self._compare_numbers(self._advanced, advanced, expected, numbers)
            if found is not None:
                self._check_laws(expected, advanced, found)
            right = masked_fractions(numbers, found) if plan.kind == "tree" else numbers[..., 0]
            self._compare_numbers(self._friendly, friendly, expected, right)
        if expected.failures or not self._may_lack_failures:
            self._compare_failures(expected)
        return sum(os.path.dirname(file) in TABLES for file in self._element.listed)

    def _compare_numbers(
        self, file: str, names: list[str], expected: ExpectedTablePart, right: np.ndarray
    ) -> np.ma.MaskedArray | None:
        """Compare a table with its numbers, shape (galaxy, output, statistic); masked ones may differ.

        Returns:
            The numbers that it has, masked where it lacks a galaxy; None if it cannot be read.
        """
        carried, predicted = expected.rows.drop_columns([LOCATION]), expected.predicted
        schema = pa.schema([*carried.schema, *(pa.field(name, pa.float32()) for name in names)])
        there, table = self._compare_rows(file, schema, expected, predicted, carried, "it failed")
        if table is None:
            return None
        self._findings.some(file, (f"{name} has nulls" for name in names if table.column(name).null_count))
        found = np.ma.masked_all((len(there), len(names)))
        found[there] = np.stack([table.column(name).to_numpy() for name in names], axis=1)
        right = np.ma.reshape(right, found.shape)
        wrong = ~close(found.data, np.ma.getdata(right))
        wrong &= ~(np.ma.getmaskarray(found) | np.ma.getmaskarray(right))
        self._findings.numbers(file, wrong, expected.ids(predicted), names, found.data, np.ma.getdata(right))
        return found

    def _check_laws(self, expected: ExpectedTablePart, names: list[str], advanced: np.ma.MaskedArray) -> None:
        """Check what is true of the advanced table, shape (galaxy, column), whatever the samples are.

        Most bounds of a tree are compared with those of the code that made them: here they are not.
        """
        ids, kind, statistic = expected.ids(expected.predicted), expected.plan.kind, np.arange(len(names)) % 4
        lower, upper = (1, 2) if kind == "tree" else (2, 3)
        above = advanced > np.roll(advanced, -1, axis=1)
        outside = ((advanced < 0) | (advanced > 1)) & (kind != "regressor")
        laws = [
            # Of a single sample of a value there is no spread.
            (np.isnan(advanced) & ((kind == "tree") | (statistic == 0)), "and must be a number"),
            (above & (statistic == lower), "and must not be above the upper bound"),
            (outside & np.isin(statistic, (0, lower, upper)), "and must be from 0 to 1"),
        ]
        for wrong, text in laws:
            self._findings.numbers(self._advanced, wrong.filled(False), ids, names, advanced.data, text)
        for answers, _ in expected.definitions.questions:
            sums = advanced[:, 0::4][:, answers].sum(axis=1, keepdims=True)
            wrong = (np.abs(sums - 1) > SUM_TOLERANCE).filled(False)
            name = f"the sum of {', '.join(expected.plan.outputs[answers])}"
            self._findings.numbers(self._advanced, wrong, ids, [name], sums.data, "and must be 1")

    def _compare_failures(self, expected: ExpectedTablePart) -> None:
        file, rows, texts = self._failures, np.array(list(expected.failures), np.int64), []
        columns, otherwise = expected.rows.select([ID, LOCATION]), "it was predicted"
        there, table = self._compare_rows(file, FAILURE_SCHEMA, expected, rows, columns, otherwise)
        for row, cells in zip(rows[there].tolist(), [] if table is None else table.to_pylist(), strict=True):
            found = cells["stage"], cells["error"], cells["may_pass"]
            right = [(f.stage, f.error, f.may_pass) for f in expected.failures[row]]
            if found not in right:
                texts.append(f"galaxy {cells[ID]!r}: {found} is not the failure in its part, {right[0]}")
        self._findings.some(file, texts)

    def _read(self, file: str, schema: pa.Schema | None) -> pa.Table | None:
        """Read a file, and compare it with the manifest; None if it is damaged or has other columns."""
        path, table = os.path.join(self._output, file), None
        found: dict[str, Any] = {}
        if not exists(path):
            self._findings.add(file, "is missing")
            return None
        with self._findings.unreadable(file, "is damaged, or cannot be read"):
            data = read_bytes(path)
            found |= {"bytes": len(data), "sha256": sha256(data)}
            read = pq.read_table(pa.BufferReader(data), page_checksum_verification=True, use_threads=False)
            read.validate(full=True)
            found["rows"], table = read.num_rows, read
        if found:
            compare_listed(file, self._element, found, self._findings)
        if table is None or schema is None:
            return table
        return table if compare_schemas(file, table.schema, schema, self._findings) else None

    def _compare_rows(
        self,
        file: str,
        schema: pa.Schema,
        expected: ExpectedTablePart,
        rows: np.ndarray,
        columns: pa.Table,
        otherwise: str,
    ) -> tuple[np.ndarray, pa.Table | None]:
        """Read a file; compare its galaxies with those of the plan, and the columns that the plan has.

        Args:
            rows: of the galaxies that the table must have, int64, shape (galaxy,).
            columns: those that the table has of the plan, with all rows.
            otherwise: what became of the other galaxies.

        Returns:
            Which of these galaxies the table has, bool, shape (galaxy,); its rows of those, in the order of
            the plan. None of them, and no table, if the file cannot be used.
        """
        table = self._read(file, schema)
        if table is None:
            return np.zeros(len(rows), bool), None
        where: dict[str, list[int]] = {}
        for row, galaxy in enumerate(table.column(ID).to_pylist()):
            where.setdefault(galaxy, []).append(row)
        right, known = expected.ids(rows), set(expected.rows.column(ID).to_pylist())
        others = known - {*right, *expected.ids(np.array(sorted(expected.unknown), np.int64))}
        ours = set(right)
        order, wanted = [g for g in where if g in ours], [g for g in right if g in where]
        swapped = [(g, place) for g, place in zip(order, wanted, strict=True) if g != place]
        some, places = partial(self._findings.some, file), where.items()
        some(f"galaxy {g!r} is a duplicate: it is in rows {many}" for g, many in places if len(many) > 1)
        some(f"galaxy {g!r} is unknown to the plan of this part" for g in where if g not in known)
        some(f"galaxy {g!r} is here, and {otherwise}" for g in where if g in others)
        some(f"galaxy {g!r} is missing" for g in right if g not in where)
        for galaxy, place in swapped[:1]:
            text = f"not in the order of the plan, first {galaxy!r} in the place of {place!r}"
            self._findings.add(file, f"{len(swapped):,} galaxies are {text}")
        there = np.array([g in where for g in right], bool)
        table = table.take(pa.array([where[g][0] for g in wanted], pa.int64()))
        compare_columns(file, table, columns.take(pa.array(rows[there])), self._findings)
        return there, table


def masked_fractions(numbers: np.ndarray, advanced: np.ma.MaskedArray | None) -> np.ma.MaskedArray:
    """The friendly table's numbers of a tree: fractions, NaN where few are asked.

    Where a proportion asked is so near to the limit that float32 noise of another machine decides, that of
    the stored advanced table counts; where the table lacks it, the fraction is masked in the result.
    """
    asked, known = numbers[..., 3], np.zeros(numbers.shape[:2], bool)
    if advanced is not None:
        stored = advanced[:, 3::4]
        known = ~np.ma.getmaskarray(stored) & close(stored.data, asked)
        asked = np.where(known, stored.data, asked)
    edge = ~known & (np.abs(asked - ASKED_AT_LEAST) <= TOLERANCE)
    return np.ma.masked_array(np.where(asked >= ASKED_AT_LEAST, numbers[..., 0], np.nan), edge)
