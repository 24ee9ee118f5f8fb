"""The steps from combined samples to tables: compute statistics, write table parts."""

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo.samples.batches import SampleBatcher
from beam_zoo.samples.ensemble import Ensemble
from beam_zoo.samples.records import in_global_window
from beam_zoo.storage.layout import ADVANCED, FRIENDLY
from beam_zoo.tables.columns import TableColumns, TablePlan
from beam_zoo.tables.write import TableRows, write_table_part

GALAXIES_AT_ONCE = 1024
"""Their statistics are computed together: enough for vectorised arithmetic, few enough for the cache."""
GALAXIES_AN_ELEMENT = 65_536


class ComputeStatistics(beam.DoFn):
    """(galaxy id, combined records) of many galaxies become a few elements (table part, pickled `TableRows`).

    They are pickled here, once: Beam would pickle each of them five times, to estimate sizes and to send it.

    Args:
        plan: what the tables are of.
        ensemble: the samples of complete galaxies.
    """

    def __init__(self, plan: TablePlan, ensemble: Ensemble) -> None:
        self._plan, self._ensemble = plan, ensemble

    def setup(self) -> None:
        self._columns = TableColumns(self._plan)

    def start_bundle(self) -> None:
        self._batcher = SampleBatcher(self._ensemble)
        self._computed: list[TableRows] = []
        self._count = 0

    def process(self, galaxy: tuple[bytes, bytes]) -> Iterable[tuple[int, bytes]]:
        self._batcher.add(*galaxy)
        if self._batcher.count < GALAXIES_AT_ONCE:
            return ()
        self._compute()
        return self._by_table_part() if self._count >= GALAXIES_AN_ELEMENT else ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._compute()
        for element in self._by_table_part():
            yield in_global_window(element)

    def _compute(self) -> None:
        for batch in self._batcher.flush():
            friendly = advanced = np.zeros((len(batch.rows), 0), np.float32)
            if batch.held:
                friendly, advanced = self._columns.compute(batch.samples)
            incomplete = np.full(len(batch.rows), len(batch.held) < len(self._ensemble.samples))
            self._computed.append(TableRows(batch.rows, batch.ids, friendly, advanced, [], incomplete))
            self._count += len(batch.rows)

    def _by_table_part(self) -> Iterator[tuple[int, bytes]]:
        """All rows that are computed and not sent yet, by table part."""
        computed, failures = self._computed, self._batcher.failures
        self._computed, self._batcher.failures, self._count = [], [], 0
        size = len(self._plan.table_rows(0))
        rows = np.concatenate([np.zeros(0, np.int64), *(each.rows for each in computed)])
        incomplete = np.concatenate([np.zeros(0, bool), *(each.incomplete for each in computed)])
        numbers = [self._numbers(computed, table) for table in (FRIENDLY, ADVANCED)]
        ids = np.array([galaxy for each in computed for galaxy in each.ids], object)
        parts = rows // size
        for part in sorted({*np.unique(parts).tolist(), *(f[0] // size for f in failures)}):
            chosen = np.flatnonzero(parts == part)
            friendly, advanced = (values[chosen] for values in numbers)
            failed = [f for f in failures if f[0] // size == part]
            chosen_ids = ids[chosen].tolist()
            of_part = TableRows(rows[chosen], chosen_ids, friendly, advanced, failed, incomplete[chosen])
            yield part, pickle.dumps(of_part, pickle.HIGHEST_PROTOCOL)

    def _numbers(self, computed: list[TableRows], table: str) -> np.ndarray:
        empty = np.zeros((0, len(getattr(self._columns, table))), np.float32)
        return np.concatenate([empty, *(getattr(each, table) for each in computed)])


class WriteTablePart(beam.DoFn):
    """All rows of a table part become a file of each table, and a report that names the stored parts read.

    Args:
        plan: what the tables are of.
        output: the folder that they are written below.
    """

    def __init__(self, plan: TablePlan, output: str) -> None:
        self._plan, self._output = plan, output

    def setup(self) -> None:
        self._columns = TableColumns(self._plan)

    def process(self, grouped: tuple[int, Iterable[bytes | dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        part, values = grouped
        rows, read = [], []
        for value in values:
            if isinstance(value, bytes):
                rows.append(pickle.loads(value))
            else:
                read.append(value)
        read.sort(key=lambda file: (file.get("source", 0), file["name"]))
        yield write_table_part(self._plan, self._output, part, rows, read, self._columns)
