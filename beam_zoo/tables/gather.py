"""The steps from stored parts to tables: read and key by galaxy, summarise, write."""

import itertools
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo.plan.plan import Plan
from beam_zoo.plan.run import Run
from beam_zoo.runtime.versions import check_source
from beam_zoo.samples import ensemble, parts
from beam_zoo.samples.assemble import Assembler, Layouts
from beam_zoo.samples.records import PartRef, in_global_window
from beam_zoo.storage.layout import ADVANCED, FRIENDLY, attempt_of
from beam_zoo.tables.tables import Block, Statistics, TablePlan, write_table_part

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

    def setup(self) -> None:
        check_source(self._run.source)

    def process(self, ref: PartRef) -> Iterable[Any]:
        plan, output = self._run.plan, self._run.output
        first, *others = parts.folders(plan)
        part = parts.read_part(plan, output, first, ref)
        digests = {first: part.sha256} | {folder: parts.digest(output, folder, ref) for folder in others}
        files = [
            {
                "name": f"{folder}/{ref.name}",
                "rows": part.table.num_rows,
                "galaxies": len(part.offsets),
                "sha256": digest,
            }
            for folder, digest in digests.items()
        ]
        read = [beam.pvalue.TaggedOutput(PARTS, (plan.table_part(ref.snippet), file)) for file in files]
        snippet = plan.snippet(ref.snippet)
        frames = part_frames(plan, output, ref, part, np.arange(snippet.start, snippet.stop))
        return itertools.chain(read, frames)


def part_frames(
    plan: Plan,
    output: str,
    ref: PartRef,
    part: parts.Part,
    places: np.ndarray,
    layout: int = 0,
    within: range | None = None,
) -> Iterator[tuple[bytes, bytes]]:
    """(galaxy id, frame) for every galaxy of a part, predicted or failed.

    Args:
        plan: the plan of the run that the part is of.
        output: folder of that run.
        ref: the part's reference.
        part: the part, as read from there.
        places: row of the tables of each of the snippet's galaxies, int64, shape (galaxy,).
        layout: which members and passes the samples are.
        within: only galaxies whose rows lie there.
    """
    rows = places[part.offsets]
    if plan.command == "represent":
        ids, samples = part.table.column("id_str"), np.zeros((len(rows), 0), np.float32)
    else:
        per_galaxy = len(plan.members) * plan.passes
        ids = part.table.column("id_str").take(pa.array(np.arange(len(rows)) * per_galaxy))
        columns = np.stack([part.table.column(name).to_numpy() for name in plan.outputs])
        samples = np.ascontiguousarray(columns.T).reshape(len(rows), per_galaxy * len(columns))
    if within is not None:
        chosen = np.flatnonzero((rows >= within.start) & (rows < within.stop))
        rows, ids, samples = rows[chosen], ids.take(pa.array(chosen)), samples[chosen]
    galaxies = ids.cast(pa.binary()).to_pylist()
    frames = ensemble.sample_frames(rows, samples, layout)
    if part.failures:
        names = plan.read_ids(output, plan.snippet(ref.snippet)).cast(pa.binary()).to_pylist()
        attempt = attempt_of(ref.name)
        for failure in part.failures:
            row = int(places[failure.offset])
            if within is None or row in within:
                galaxies.append(names[failure.offset])
                frames.append(ensemble.failure_frame(row, failure, layout, attempt))
    return zip(galaxies, frames, strict=True)


class Summarise(beam.DoFn):
    """Many galaxies' samples become statistics: (table part, pickled block), a few large blocks a bundle.

    Beam, which would pickle each block five times to count bytes and to send it, finds bytes.

    Args:
        plan: what the tables are of.
        layouts: which members and passes the samples are.
    """

    def __init__(self, plan: TablePlan, layouts: Layouts) -> None:
        self._plan, self._layouts = plan, layouts

    def setup(self) -> None:
        self._statistics = Statistics(self._plan)

    def start_bundle(self) -> None:
        self._galaxies = Assembler(self._layouts)
        self._done: list[Block] = []
        self._count = 0

    def process(self, galaxy: tuple[bytes, bytes]) -> Iterable[tuple[int, bytes]]:
        self._galaxies.add(*galaxy)
        if self._galaxies.waiting < GALAXIES_AT_ONCE:
            return ()
        self._summarise()
        return self._blocks() if self._count >= GALAXIES_A_BLOCK else ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._summarise()
        for block in self._blocks():
            yield in_global_window(block)

    def _summarise(self) -> None:
        for some in self._galaxies.take():
            friendly = advanced = np.zeros((len(some.rows), 0), np.float32)
            if some.present:
                friendly, advanced = self._statistics.compute(some.samples)
            incomplete = np.full(len(some.rows), len(some.present) < len(self._layouts.samples))
            self._done.append(Block(some.rows, some.ids, friendly, advanced, [], incomplete))
            self._count += len(some.rows)

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """All that is done, split by table part."""
        done, failures = self._done, self._galaxies.failures
        self._done, self._galaxies.failures, self._count = [], [], 0
        size = len(self._plan.table_rows(0))
        rows = np.concatenate([np.zeros(0, np.int64), *(block.rows for block in done)])
        incomplete = np.concatenate([np.zeros(0, bool), *(block.incomplete for block in done)])
        numbers = [self._numbers(done, table) for table in (FRIENDLY, ADVANCED)]
        ids = np.array([galaxy for block in done for galaxy in block.ids], object)
        where = rows // size
        for part in sorted({*np.unique(where).tolist(), *(f[0] // size for f in failures)}):
            chosen = np.flatnonzero(where == part)
            friendly, advanced = (values[chosen] for values in numbers)
            failed = [f for f in failures if f[0] // size == part]
            some = ids[chosen].tolist()
            block = Block(rows[chosen], some, friendly, advanced, failed, incomplete[chosen])
            yield part, pickle.dumps(block, pickle.HIGHEST_PROTOCOL)

    def _numbers(self, blocks: list[Block], table: str) -> np.ndarray:
        empty = np.zeros((0, len(getattr(self._statistics, table))), np.float32)
        return np.concatenate([empty, *(getattr(block, table) for block in blocks)])


class WriteTables(beam.DoFn):
    """All blocks of a table part become one file of each table; the parts they came from go into its report.

    Args:
        plan: what the tables are of.
        output: the folder that they are written below.
    """

    def __init__(self, plan: TablePlan, output: str) -> None:
        self._plan, self._output = plan, output

    def setup(self) -> None:
        self._statistics = Statistics(self._plan)

    def process(self, gathered: tuple[int, Iterable[bytes | dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        number, values = gathered
        blocks, read = [], []
        for value in values:
            if isinstance(value, bytes):
                blocks.append(pickle.loads(value))
            else:
                read.append(value)
        read.sort(key=lambda file: (file.get("source", 0), file["name"]))
        yield write_table_part(self._plan, self._output, number, blocks, read, self._statistics)
