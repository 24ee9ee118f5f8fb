"""From stored samples to tables."""

from typing import Any

import apache_beam as beam

from beam_zoo.plan.run import Run
from beam_zoo.samples.combine import CombineSamples
from beam_zoo.samples.ensemble import Ensemble
from beam_zoo.samples.read import FILES, ReadStoredPart
from beam_zoo.samples.records import PartRef
from beam_zoo.tables.columns import TablePlan
from beam_zoo.tables.steps import ComputeStatistics, WriteTablePart


def tables(refs: "beam.PCollection[PartRef]", run: Run) -> "beam.PCollection[dict[str, Any]]":
    """Read the stored parts, combine the samples of each galaxy, and write the tables.

    Args:
        refs: all parts of the table parts that are to be written.
        run: the run.

    Returns:
        The report of each table part.
    """
    reader = beam.ParDo(ReadStoredPart(run)).with_output_types(tuple[bytes, bytes])
    read = refs | "read parts" >> reader.with_outputs(FILES, main="galaxies")
    return combine_and_write(read, run.plan, run.output, Ensemble.of(run.plan))


def combine_and_write(
    read: Any, plan: TablePlan, output: str, ensemble: Ensemble
) -> "beam.PCollection[dict[str, Any]]":
    """Combine the samples of each galaxy, and write the tables.

    Args:
        read: its output `galaxies` has (galaxy id, record), its output `FILES` (table part, file read).
        plan: what the tables are of.
        output: the folder that they are written below.
        ensemble: the samples of complete galaxies.

    Returns:
        The report of each table part.
    """
    rows = (
        read.galaxies
        | "combine samples" >> beam.CombinePerKey(CombineSamples())
        | "compute statistics" >> beam.ParDo(ComputeStatistics(plan, ensemble))
    )
    return (
        (rows, read[FILES])
        | "rows and files" >> beam.Flatten()
        | "by table part" >> beam.GroupByKey()
        | "write tables" >> beam.ParDo(WriteTablePart(plan, output))
    )
