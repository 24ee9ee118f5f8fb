"""From snippets to stored samples."""

from typing import TypeVar

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference

from beam_zoo.inference.handler import MemberHandler
from beam_zoo.inference.load import STORED, LoadImages
from beam_zoo.inference.settings import InferenceSettings
from beam_zoo.plan.run import Run
from beam_zoo.plan.snippet import Snippet
from beam_zoo.samples.records import PartRef, SnippetBatch
from beam_zoo.samples.store import REMAINDERS, Store, StoreGathered

T = TypeVar("T", bound=beam.PTransform)


def samples(
    snippets: "beam.PCollection[Snippet]", run: Run, hints: dict[str, str] | None = None
) -> "beam.PCollection[PartRef]":
    """Predict snippets and store each as one part, written before any shuffle that follows inference.

    Args:
        snippets: those to do.
        run: the run.
        hints: Beam's resource hints of the whole chain from images to stored samples. A runner fuses only
            steps with the same hints, so that one on a part of the chain would send pixels through a shuffle.

    Returns:
        References to their parts, new or already there.
    """
    # Paths travel, pixels never do: nothing between the images and the stored samples is a shuffle of ours.
    loading = _hinted(beam.ParDo(LoadImages(run)), hints).with_outputs(STORED, main="batches")
    loaded = snippets | "spread" >> beam.Reshuffle() | "load images" >> loading
    loaded.batches.element_type = SnippetBatch
    stored = store(infer(loaded.batches, InferenceSettings.of(run), hints), run, hints)
    return (stored, loaded[STORED]) | "all parts" >> beam.Flatten()


def infer(
    batches: beam.PCollection, settings: InferenceSettings, hints: dict[str, str] | None = None
) -> beam.PCollection:
    """One RunInference per checkpoint, chained: each adds its outputs to the batch; images are read once."""
    for member in settings.members:
        inference = _hinted(RunInference(MemberHandler(member, settings)), hints)
        inference = inference.with_output_types(batches.element_type)
        batches = batches | f"infer {member.name}" >> inference
    return batches


def store(
    batches: beam.PCollection, run: Run, hints: dict[str, str] | None = None
) -> "beam.PCollection[PartRef]":
    """Batches become stored parts, also where a runner splits the batches of a snippet over bundles."""
    storing = _hinted(beam.ParDo(Store(run)), hints).with_outputs(REMAINDERS, main="parts")
    stored = batches | "store" >> storing
    late = (
        stored[REMAINDERS]
        | "by snippet" >> beam.GroupByKey()
        | "store gathered" >> beam.ParDo(StoreGathered(run))
    )
    return (stored.parts, late) | "stored parts" >> beam.Flatten()


def _hinted(transform: T, hints: dict[str, str] | None) -> T:
    transform.with_resource_hints(**hints or {})
    return transform
