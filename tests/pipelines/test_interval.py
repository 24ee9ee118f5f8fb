"""`--interval mixture`: another interval from the same samples."""

import json

import numpy as np
import pandas as pd
import pytest

from beam_zoo.members import schema as schemas
from beam_zoo.tables.statistics import INTERVAL
from pipelines import aggregate, audit, finish
from tests import checkpoints
from tests.beam_zoo.test_mixture import roots

OPTIONS = ["--passes", 3, "--snippet_size", 10]


def bounds(output) -> np.ndarray:
    """(bound, galaxy, answer) of the advanced table."""
    table = pd.read_parquet(output / "advanced")
    ends = ("_90pc-lower", "_90pc-upper")
    return np.stack([table[[c for c in table.columns if c.endswith(end)]].to_numpy() for end in ends])


def samples(output) -> np.ndarray:
    """(galaxy, sample, answer)."""
    table = pd.read_parquet(output / "samples").drop(columns=["id_str", "member", "pass"])
    return table.to_numpy(np.float64).reshape(-1, 6, table.shape[1])


@pytest.fixture
def mixed(predict, few, trees):
    run = predict(few, trees, *OPTIONS, "--interval", "mixture")
    assert run.code == 0, run.err
    return run


def test_the_numbers(mixed):
    """Of the stored samples, question by question, by scipy's root finder."""
    a = samples(mixed.output)
    found = bounds(mixed.output)
    for question in schemas.make_schema(*_schema(mixed.output)).questions:
        some = slice(question.start_index, question.end_index + 1)
        others = a[..., some].sum(-1, keepdims=True) - a[..., some]
        for answer in range(some.start, some.stop):
            expected = roots(a[:5, :, answer].T, others[:5, :, answer - some.start].T)
            np.testing.assert_allclose(found[:, :5, answer], expected, rtol=0, atol=1e-5)
    assert len(INTERVAL) == len(found)


def _schema(output):
    member = json.loads((output / "manifest.json").read_text())["members"][0]
    return member["schema"]["question_answer_pairs"], member["schema"]["dependencies"]


def test_another_interval_builds_tables_only(predict, few, trees, mixed, capfd):
    """And back again: the same bytes. The audit computes whichever it is."""
    stamps = {p: p.stat().st_mtime_ns for p in (mixed.output / "samples").iterdir()}
    before = (mixed.output / "advanced" / "part-000000.parquet").read_bytes()
    assert audit.main([str(mixed.output)]) == 0, capfd.readouterr()
    median = predict(few, trees, *OPTIONS, output=mixed.output)
    assert median.code == 0 and "0 to do" in median.err, median.err
    assert not np.allclose(bounds(mixed.output), 0) and audit.main([str(mixed.output)]) == 0
    assert (mixed.output / "advanced" / "part-000000.parquet").read_bytes() != before
    again = predict(few, trees, *OPTIONS, "--interval", "mixture", output=mixed.output)
    assert again.code == 0, again.err
    assert (mixed.output / "advanced" / "part-000000.parquet").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in (mixed.output / "samples").iterdir()} == stamps
    (mixed.output / "manifest.json").unlink()
    assert finish.main([str(mixed.output)]) == 0
    assert (mixed.output / "advanced" / "part-000000.parquet").read_bytes() == before


def test_an_aggregate(predict, few, trees, mixed, tmp_path, capfd):
    """Of one run each member, whatever interval those have."""
    runs = [predict(few, tree, *OPTIONS).output for tree in trees]
    output = tmp_path / "all"
    words = ["--samples", *map(str, runs), "--output", str(output)]
    assert aggregate.main([*words, "--interval", "mixture"]) == 0
    np.testing.assert_array_equal(bounds(output), bounds(mixed.output))
    assert audit.main([str(output)]) == 0, capfd.readouterr()
    manifest = json.loads((output / "manifest.json").read_text())
    (output / "manifest.json").write_text(json.dumps({**manifest, "interval": "median"}))
    assert audit.main([str(output)]) == 1
    assert aggregate.main([*words, "--overwrite", "--interval", "mean"]) == 2


def test_refused(predict, represent, few, trees, tmp_path):
    path = checkpoints.finetuned("FinetuneableZoobotClassifier", tmp_path / "c.ckpt", num_classes=2)
    member = checkpoints.member(
        tmp_path / "c.yaml",
        path,
        zoobot_class="FinetuneableZoobotClassifier",
        encoder=checkpoints.ARCHITECTURE,
        class_names=["no", "ring"],
    )
    for run in (
        predict(few, member, "--interval", "mixture"),
        represent(few, trees, "--interval", "mixture"),
    ):
        assert run.code == 2 and "--interval mixture is for vote fractions" in run.err.splitlines()[-1]
