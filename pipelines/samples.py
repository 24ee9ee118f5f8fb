"""From snippets to stored samples."""

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference

from beam_zoo.inference import MemberHandler
from beam_zoo.load import STORED, LoadImages
from beam_zoo.records import PartRef, Snippet
from beam_zoo.run import Run
from beam_zoo.store import REMAINDERS, Store, StoreGathered


def samples(snippets: "beam.PCollection[Snippet]", run: Run) -> "beam.PCollection[PartRef]":
    """Predict snippets and store each as one part, written before any shuffle that follows inference.

    Args:
        snippets: those to do.
        run: the run.

    Returns:
        References to their parts, new or already there.
    """
    # Paths travel, pixels never do: nothing between the images and the stored samples is a shuffle of ours.
    loaded = (
        snippets
        | "spread" >> beam.Reshuffle()
        | "load images" >> beam.ParDo(LoadImages(run)).with_outputs(STORED, main="batches")
    )
    stored = store(infer(loaded.batches, run), run)
    return (stored, loaded[STORED]) | "all parts" >> beam.Flatten()


def infer(batches: beam.PCollection, run: Run) -> beam.PCollection:
    """One RunInference per checkpoint, chained: each adds its outputs to the batch, so images are read once."""
    for member in run.plan.members:
        batches = batches | f"infer {member.name}" >> RunInference(MemberHandler(member, run))
    return batches


def store(batches: beam.PCollection, run: Run) -> "beam.PCollection[PartRef]":
    """Batches become stored parts, also where a runner splits the batches of a snippet over bundles."""
    stored = batches | "store" >> beam.ParDo(Store(run)).with_outputs(REMAINDERS, main="parts")
    late = (
        stored[REMAINDERS]
        | "by snippet" >> beam.GroupByKey()
        | "store gathered" >> beam.ParDo(StoreGathered(run))
    )
    return (stored.parts, late) | "stored parts" >> beam.Flatten()
