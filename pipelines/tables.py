"""From stored samples to tables."""

from typing import Any

import apache_beam as beam

from beam_zoo.ensemble import Ensemble
from beam_zoo.gather import PARTS, ReadPart, Summarise, WriteTables
from beam_zoo.records import PartRef
from beam_zoo.run import Run


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
    blocks = (
        read.galaxies
        | "gather" >> beam.CombinePerKey(Ensemble()).with_output_types(tuple[bytes, bytes])
        | "summarise" >> beam.ParDo(Summarise(run))
    )
    return (
        (blocks, read[PARTS])
        | "blocks and parts" >> beam.Flatten()
        | "by table part" >> beam.GroupByKey()
        | "write tables" >> beam.ParDo(WriteTables(run))
    )
