"""The step from batches of rows to dictionaries: the numbers of the advanced table, and failures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo.samples.records import Row, RowBatch
from beam_zoo.samples.store import finite_only
from beam_zoo.tables.columns import StatisticsPlan, TableColumns

FAILURES = "failures"


class MakeDictionaries(beam.DoFn):
    """Turns a batch of all members' outputs into a dictionary per galaxy; failures go to output `FAILURES`.

    Each has the window and the timestamp of its row.

    Args:
        plan: what the statistics are of.
        pass_numbers: numbers of the passes.
        carried: keys of a row that its dictionary carries along; a failure has all of its row.
        samples: whether the dictionary also has all samples.
    """

    def __init__(
        self, plan: StatisticsPlan, pass_numbers: range, carried: Sequence[str], *, samples: bool
    ) -> None:
        self._plan, self._pass_numbers = plan, pass_numbers
        self._carried, self._samples = tuple(carried), samples

    def setup(self) -> None:
        self._columns = TableColumns(self._plan)

    def process(self, batch: RowBatch) -> Iterator[Any]:
        batch = finite_only(batch.on_host())

        def of(row: Row, values: Mapping[str, Any]) -> WindowedValue:
            return WindowedValue(values, row.timestamp, (batch.window,))

        for failure in batch.failures:
            row = batch.rows[failure.offset]
            why = {"stage": failure.stage, "error": failure.error, "may_pass": failure.may_pass}
            yield beam.pvalue.TaggedOutput(FAILURES, of(row, {**row.values, **why}))
        if not len(batch):
            return
        # (galaxy, member, pass, output)
        outputs = np.stack([batch.outputs[member.name] for member in self._plan.members], axis=1)
        _, numbers = self._columns.compute(outputs.reshape(len(batch), -1, outputs.shape[-1]))
        for index, offset in enumerate(batch.offsets):
            row = batch.rows[offset]
            found = {key: row.values.get(key) for key in ("id_str", *self._carried)}
            found |= zip(self._columns.advanced, numbers[index].tolist(), strict=True)
            if self._samples:
                found["samples"] = self._sample_rows(outputs[index])
            yield of(row, found)

    def _sample_rows(self, outputs: np.ndarray) -> list[dict[str, Any]]:
        """Of one galaxy, a dictionary for each member and pass."""
        return [
            {"member": member.name, "pass": number, **dict(zip(self._plan.outputs, values, strict=True))}
            for member, passes in zip(self._plan.members, outputs.tolist(), strict=True)
            for number, values in zip(self._pass_numbers, passes, strict=True)
        ]
