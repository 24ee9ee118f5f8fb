"""From stored samples to tables."""

from typing import Any

import apache_beam as beam

from beam_zoo.plan.run import Run
from beam_zoo.samples.assemble import Layouts
from beam_zoo.samples.ensemble import Ensemble
from beam_zoo.samples.records import PartRef
from beam_zoo.tables.gather import PARTS, ReadPart, Summarise, WriteTables
from beam_zoo.tables.tables import TablePlan


def tables(refs: "beam.PCollection[PartRef]", run: Run) -> "beam.PCollection[dict[str, Any]]":
    """Gather every galaxy's samples from the stored parts, and write the tables.

    Args:
        refs: all parts of the table parts that are to be written.
        run: the run.

    Returns:
        One report per table part.
    """
    reader = beam.ParDo(ReadPart(run)).with_output_types(tuple[bytes, bytes])
    read = refs | "read parts" >> reader.with_outputs(PARTS, main="galaxies")
    return from_frames(read, run.plan, run.output, Layouts.of(run.plan))


def from_frames(
    read: Any, plan: TablePlan, output: str, layouts: Layouts
) -> "beam.PCollection[dict[str, Any]]":
    """Gather what was read, whatever it was read from, and write the tables.

    Args:
        read: its output `galaxies` has (galaxy id, frame), its output `PARTS` (table part, file that was read).
        plan: what the tables are of.
        output: the folder that they are written below.
        layouts: which members and passes the samples are.

    Returns:
        One report per table part.
    """
    blocks = (
        read.galaxies
        | "gather" >> beam.CombinePerKey(Ensemble())
        | "summarise" >> beam.ParDo(Summarise(plan, layouts))
    )
    return (
        (blocks, read[PARTS])
        | "blocks and parts" >> beam.Flatten()
        | "by table part" >> beam.GroupByKey()
        | "write tables" >> beam.ParDo(WriteTables(plan, output))
    )
