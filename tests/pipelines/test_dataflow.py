"""The shape of the dataflow: what is stored when, whatever a runner fuses; the CombineFn's algebra."""

import random
from pathlib import Path

import apache_beam as beam
import numpy as np
import pandas as pd
import pytest
from apache_beam.testing.util import assert_that, equal_to

from beam_zoo.images.failure import Failure
from beam_zoo.inference.load import STORED, LoadImages
from beam_zoo.inference.settings import InferenceSettings
from beam_zoo.plan import plan_file
from beam_zoo.plan.run import Run
from beam_zoo.samples import parts
from beam_zoo.samples.combine import CombineSamples, failure_record, header, sample_records, split_records
from beam_zoo.samples.records import PartRef
from beam_zoo.storage import layout
from pipelines.samples import infer, samples, store
from runners import direct
from tests import oracle


def planned(output: Path, few: Path, batch_size: int = 4) -> Run:
    """The run of an output whose plan is there."""
    made = plan_file.read(str(output))
    assert made is not None
    return Run(made, str(output), str(few.parent), batch_size, "cpu")


@pytest.fixture
def stored(predict, few, trees):
    """A finished run of 3 snippets."""
    return predict(few, trees, "--snippet_size", 10, "--passes", 2, "--batch_size", 4).output


def empty_copy(stored: Path, tmp_path: Path) -> Path:
    """The same plan without any part."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(stored, copy, ignore=shutil.ignore_patterns("samples", "friendly", "advanced", "_tables"))
    (copy / "manifest.json").unlink()
    return copy


def test_broken_fusion_stores_the_same_samples(stored, few, tmp_path):
    """Shuffles around every inference step: batches of all snippets reach the store in any order."""
    run = planned(empty_copy(stored, tmp_path), few)

    def build(p):
        snippets = p | beam.Create([run.plan.snippet(n) for n in range(run.plan.snippets)])
        loaded = snippets | beam.ParDo(LoadImages(run)).with_outputs(STORED, main="batches")
        batches = loaded.batches | "break before" >> beam.Reshuffle()
        refs = store(infer(batches, InferenceSettings.of(run)) | "break after" >> beam.Reshuffle(), run)
        assert_that(refs, equal_to([PartRef(n, layout.part_name(n)) for n in range(3)]))

    direct.run(build, [])
    oracle.assert_same_samples(
        pd.read_parquet(Path(run.output) / "samples"), pd.read_parquet(stored / "samples")
    )


def test_batches_of_a_snippet_in_several_bundles(stored, few, tmp_path):
    """A runner that cuts bundles inside a snippet: what is incomplete is gathered by snippet, then stored."""
    run = planned(empty_copy(stored, tmp_path), few)

    class BundlesOfOne(beam.DoFn):
        """Keyed by the batch itself: with a GroupByKey the runner may bundle as it likes, here per key."""

        def process(self, element):
            yield from element[1]

    def build(p):
        snippets = p | beam.Create([run.plan.snippet(n) for n in range(run.plan.snippets)])
        loaded = snippets | beam.ParDo(LoadImages(run)).with_outputs(STORED, main="batches")
        cut = (
            infer(loaded.batches, InferenceSettings.of(run))
            | beam.Map(lambda batch: (int(batch.offsets[0]) % 5, batch))
            | beam.GroupByKey()
            | beam.ParDo(BundlesOfOne())
        )
        refs = store(cut, run)
        assert_that(refs, equal_to([PartRef(n, layout.part_name(n)) for n in range(3)]))

    direct.run(build, [])
    oracle.assert_same_samples(
        pd.read_parquet(Path(run.output) / "samples"), pd.read_parquet(stored / "samples")
    )


def test_samples_are_stored_before_a_later_step_fails(stored, few, tmp_path):
    """A failure after the shuffle that follows inference loses no sample."""
    run = planned(empty_copy(stored, tmp_path), few)

    class Fails(beam.DoFn):
        def process(self, element):
            raise RuntimeError("after the shuffle")

    def build(p):
        snippets = p | beam.Create([run.plan.snippet(n) for n in range(run.plan.snippets)])
        samples(snippets, run) | beam.GroupBy(lambda ref: ref.snippet) | beam.ParDo(Fails())

    with pytest.raises(RuntimeError, match="after the shuffle"):
        direct.run(build, [])
    assert len(parts.stored_parts(run.plan, run.output)) == 3
    oracle.assert_same_samples(
        pd.read_parquet(Path(run.output) / "samples"), pd.read_parquet(stored / "samples")
    )


def test_a_snippet_that_is_stored_by_now_is_not_read_again(stored, few, monkeypatch):
    run = planned(stored, few)
    monkeypatch.setattr("beam_zoo.images.decode.read_bytes", lambda *_: pytest.fail("an image was read"))

    def build(p):
        snippets = p | beam.Create([run.plan.snippet(n) for n in range(3)])
        assert_that(samples(snippets, run), equal_to([PartRef(n, layout.part_name(n)) for n in range(3)]))

    before = {p: p.stat().st_mtime_ns for p in (stored / "samples").iterdir()}
    direct.run(build, [])
    assert before == {p: p.stat().st_mtime_ns for p in (stored / "samples").iterdir()}


def test_models_load_once(predict, few, trees, monkeypatch):
    """However many snippets: the local runner makes one pipeline of all samples."""
    from beam_zoo.inference.handler import MemberHandler

    loaded = []
    real = MemberHandler.load_model
    monkeypatch.setattr(
        MemberHandler, "load_model", lambda handler: loaded.append(handler._member.name) or real(handler)
    )
    assert predict(few, trees, "--snippet_size", 2, "--passes", 1).code == 0
    assert sorted(loaded) == ["a", "b"]


def test_one_graph_as_clusters_run_it(predict, few, trees, request):
    """The single graph of samples and tables gives the tables of the local runner's two steps."""
    local = predict(few, trees, "--snippet_size", 4, "--passes", 2)
    request.getfixturevalue("cluster")
    cluster = predict(few, trees, "--snippet_size", 4, "--passes", 2)
    assert (local.code, cluster.code) == (0, 0), cluster.err
    for name in ("friendly", "advanced"):
        pd.testing.assert_frame_equal(local.table(name), cluster.table(name))


def records_of(galaxy: np.random.Generator) -> list[bytes]:
    """A few records of one galaxy: samples from several sources, and failures."""
    made = [
        sample_records(np.array([5]), galaxy.random((1, 12), np.float32), source)[0] for source in range(3)
    ]
    return [
        *made,
        failure_record(5, Failure(5, "image", "é missing", True)),
        failure_record(5, Failure(5, "view", "", False)),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_combine_fn_is_associative_and_commutative(seed):
    """Any split into accumulators, any order of inputs and merges, and repeats: the same bytes."""
    chance = random.Random(seed)
    records = records_of(np.random.default_rng(seed))
    combine = CombineSamples()
    expected = combine.extract_output(combine.add_input(combine.create_accumulator(), b"".join(records)))
    assert split_records(expected) == sorted(records, key=lambda record: (*header(record)[1:3], record))
    inputs = records + chance.choices(records, k=3)
    chance.shuffle(inputs)
    accumulators = [combine.create_accumulator() for _ in range(chance.randint(1, 6))]
    for record in inputs:
        index = chance.randrange(len(accumulators))
        accumulators[index] = combine.add_input(accumulators[index], record)
    while len(accumulators) > 1:
        chance.shuffle(accumulators)
        count = chance.randint(2, len(accumulators))
        merged = combine.merge_accumulators(accumulators[:count])
        accumulators = [combine.compact(merged), *accumulators[count:]]
    assert combine.extract_output(accumulators[0]) == combine.apply(inputs) == expected


def test_the_combine_fn_under_combine_per_key():
    """Through Beam itself, with combiner lifting and without, and several bundles."""
    random_ = np.random.default_rng(0)
    records = {f"galaxy {n}".encode(): records_of(random_) for n in range(50)}
    pairs = [(key, record) for key, values in records.items() for record in values * 2]
    random.Random(0).shuffle(pairs)
    combine = CombineSamples()
    expected = [(key, combine.extract_output(b"".join(values))) for key, values in records.items()]

    def build(p):
        out = p | beam.Create(pairs) | beam.Reshuffle() | beam.CombinePerKey(CombineSamples())
        assert_that(out, equal_to(expected))

    direct.run(build, [])
