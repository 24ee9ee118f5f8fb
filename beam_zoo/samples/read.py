"""The step from stored parts to galaxies: each becomes (galaxy id, record)."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_zoo.plan.plan import Plan
from beam_zoo.plan.run import Run
from beam_zoo.runtime.versions import check_source
from beam_zoo.samples import parts
from beam_zoo.samples.combine import failure_record, sample_records
from beam_zoo.samples.records import PartRef
from beam_zoo.storage.layout import attempt_of

FILES = "files"


class ReadStoredPart(beam.DoFn):
    """A reference becomes (galaxy id, record) for each galaxy of the part, predicted or failed.

    The files that were read go to the output `FILES`, as (table part, file).

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
        read = [beam.pvalue.TaggedOutput(FILES, (plan.table_part(ref.snippet), file)) for file in files]
        snippet = plan.snippet(ref.snippet)
        records = part_records(plan, output, ref, part, np.arange(snippet.start, snippet.stop))
        return itertools.chain(read, records)


def part_records(
    plan: Plan,
    output: str,
    ref: PartRef,
    part: parts.Part,
    table_rows: np.ndarray,
    source: int = 0,
    within: range | None = None,
) -> Iterator[tuple[bytes, bytes]]:
    """(galaxy id, record) for each galaxy of a part, predicted or failed.

    Args:
        plan: the plan of the run that the part is of.
        output: folder of that run.
        ref: the part's reference.
        part: the part, as read from there.
        table_rows: row of the tables of each of the snippet's galaxies, int64, shape (galaxy,).
        source: number of the run.
        within: only galaxies whose rows lie there.
    """
    rows = table_rows[part.offsets]
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
    records = sample_records(rows, samples, source)
    if part.failures:
        names = plan.read_ids(output, plan.snippet(ref.snippet)).cast(pa.binary()).to_pylist()
        attempt = attempt_of(ref.name)
        for failure in part.failures:
            row = int(table_rows[failure.offset])
            if within is None or row in within:
                galaxies.append(names[failure.offset])
                records.append(failure_record(row, failure, source, attempt))
    return zip(galaxies, records, strict=True)
