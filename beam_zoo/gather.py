"""The steps from stored parts to tables: read and key by galaxy, summarise, write."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo import ensemble, parts
from beam_zoo.errors import UserError
from beam_zoo.records import Failure, PartRef
from beam_zoo.run import Run
from beam_zoo.tables import Block, Statistics, write_table_part

GALAXIES_AT_ONCE = 1024
"""Summarised together: large enough for vectorised arithmetic, small enough for the processor's cache."""

GALAXIES_A_BLOCK = 65_536

PARTS = "parts"


class ReadPart(beam.DoFn):
    """A reference becomes (galaxy id, frame) for every galaxy of the part: predicted or failed.

    What was read goes to the output `PARTS`, as (table part, file of the part).

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def process(self, ref: PartRef) -> Iterator[Any]:
        plan, output = self._run.plan, self._run.output
        first, *others = parts.folders(plan)
        part = parts.read_part(plan, output, first, ref)
        file = {
            "name": f"{first}/{ref.name}",
            "rows": part.table.num_rows,
            "galaxies": len(part.offsets),
            "sha256": part.sha256,
        }
        yield beam.pvalue.TaggedOutput(PARTS, (plan.table_part(ref.snippet), file))
        for folder in others:
            rows = pq.read_metadata(os.path.join(output, folder, ref.name)).num_rows
            if rows != part.table.num_rows:
                raise UserError(
                    f"{folder}/{ref.name} has {rows} rows, and {first}/{ref.name} {part.table.num_rows}"
                )
        snippet = plan.snippet(ref.snippet)
        rows = part.offsets + snippet.start
        if plan.command == "represent":
            ids, samples = part.table.column("id_str").to_pylist(), np.zeros((len(rows), 0), np.float32)
        else:
            per_galaxy = len(plan.members) * plan.passes
            ids = part.table.column("id_str").to_pylist()[::per_galaxy]
            columns = [part.table.column(name).to_numpy() for name in plan.outputs]
            samples = np.stack(columns, axis=1).reshape(len(rows), per_galaxy * len(columns))
        for galaxy, frame in zip(ids, ensemble.sample_frames(rows, samples), strict=True):
            yield galaxy.encode(), frame
        if part.failures:
            names, _ = plan.read_rows(output, snippet)
            for failure in part.failures:
                frame = ensemble.failure_frame(snippet.start + failure.offset, failure)
                yield names[failure.offset].encode(), frame


class Summarise(beam.DoFn):
    """Many galaxies' samples become statistics: (table part, block), a few large blocks a bundle.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def setup(self) -> None:
        self._statistics = Statistics(self._run.plan)
        plan = self._run.plan
        self._samples = 0 if plan.command == "represent" else len(plan.members) * plan.passes
        self._values = self._samples * len(plan.outputs)

    def start_bundle(self) -> None:
        self._ids: list[str] = []
        self._frames: list[bytes] = []
        self._failures: list[tuple[int, str, Failure]] = []
        self._done: list[Block] = []

    def process(self, galaxy: tuple[bytes, bytes]) -> Iterator[tuple[int, Block]]:
        name, frames = galaxy
        length, kind, _, row = ensemble.header(frames)
        if kind == ensemble.FAILURE:
            self._failures.append((row, name.decode(), ensemble.read_failure(frames[:length])))
            return
        if length < len(frames):
            self._refuse_conflict(name, frames)
        self._ids.append(name.decode())
        self._frames.append(frames[:length])
        if len(self._ids) >= GALAXIES_AT_ONCE:
            self._summarise()
            if len(self._done) * GALAXIES_AT_ONCE >= GALAXIES_A_BLOCK:
                yield from self._blocks()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._summarise()
        for block in self._blocks():
            yield WindowedValue(block, GlobalWindow().max_timestamp(), (GlobalWindow(),))

    def _refuse_conflict(self, name: bytes, frames: bytes) -> None:
        samples = [f for f in ensemble.split(frames) if ensemble.header(f)[1] == ensemble.SAMPLES]
        if len(samples) > 1:
            raise UserError(f"galaxy {name.decode()!r} has two different sets of samples in the stored parts")

    def _summarise(self) -> None:
        if not self._ids:
            return
        rows, flat = ensemble.stack(self._frames, self._values)
        friendly = advanced = np.zeros((len(rows), 0), np.float32)
        if self._samples:
            samples = flat.reshape(len(rows), self._samples, -1)
            friendly, advanced = self._statistics.compute(samples)
        self._done.append(Block(rows, self._ids, friendly, advanced, []))
        self._ids, self._frames = [], []

    def _blocks(self) -> Iterator[tuple[int, Block]]:
        """All that is done, split by table part."""
        plan = self._run.plan
        done, failures = self._done, self._failures
        self._done, self._failures = [], []
        size = plan.snippets_per_table * plan.snippet_size
        rows = np.concatenate([block.rows for block in done]) if done else np.zeros(0, np.int64)
        numbers = [self._numbers(done, table) for table in ("friendly", "advanced")]
        ids = np.array([galaxy for block in done for galaxy in block.ids], object)
        where = rows // size
        for part in sorted({*np.unique(where).tolist(), *(f[0] // size for f in failures)}):
            chosen = np.flatnonzero(where == part)
            friendly, advanced = (values[chosen] for values in numbers)
            failed = [f for f in failures if f[0] // size == part]
            yield part, Block(rows[chosen], ids[chosen].tolist(), friendly, advanced, failed)

    def _numbers(self, blocks: list[Block], table: str) -> np.ndarray:
        empty = np.zeros((0, len(getattr(self._statistics, table))), np.float32)
        return np.concatenate([empty, *(getattr(block, table) for block in blocks)])


class WriteTables(beam.DoFn):
    """All blocks of a table part become one file of each table; the parts they came from go into its report.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def setup(self) -> None:
        self._statistics = Statistics(self._run.plan)

    def process(self, gathered: tuple[int, Iterable[Block | dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        number, values = gathered
        blocks, read = [], []
        for value in values:
            if isinstance(value, Block):
                blocks.append(value)
            else:
                read.append(value)
        read.sort(key=lambda file: file["name"])
        yield write_table_part(self._run.plan, self._run.output, number, blocks, read, self._statistics)
