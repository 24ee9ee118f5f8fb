"""Outputs as objects: what they say and read is what the files hold, and what is wrong is one line."""

import json
import shutil

import pandas as pd
import pyarrow as pa
import pytest

from beam_zoo.errors import UserError
from beam_zoo.results import open_output
from tests import galaxies, oracle
from tests.pipelines.unions import aggregate

OPTIONS = ["--passes", 2, "--snippet_size", 10, "--carry", "ra"]


@pytest.fixture
def finished(predict, few, trees):
    """A finished output of 3 snippets."""
    return predict(few, trees, *OPTIONS).output


def test_tables_are_those_of_the_files(finished):
    output = open_output(finished)
    assert (output.command, output.rows, output.predicted, output.failed) == ("predict", 23, 23, 0)
    assert output.members == ("a", "b") and output.path == str(finished)
    assert "predict, 23 of 23 galaxies predicted, 0 failed" in repr(output)
    for name in ("friendly", "advanced", "failures", "samples"):
        expected = pd.read_parquet(finished / name)
        frame, table = getattr(output, name)(), getattr(output, name)(arrow=True)
        assert isinstance(table, pa.Table)
        pd.testing.assert_frame_equal(frame, expected)
        pd.testing.assert_frame_equal(table.to_pandas(), expected)
        assert output.paths[name] == sorted(str(path) for path in (finished / name).iterdir())
    assert open_output(str(finished) + "/") == output


def test_files_that_the_manifest_does_not_name_are_not_read(finished):
    output = open_output(finished)
    expected = {name: getattr(output, name)() for name in ("friendly", "samples")}
    for name, frame in expected.items():
        shutil.copy(next((finished / name).iterdir()), finished / name / "part-0000999.parquet")
        pd.testing.assert_frame_equal(getattr(output, name)(), frame)


def test_samples_of_galaxies_that_were_tried_again_have_the_catalogues_order(predict, trees, tmp_path):
    galaxies.simulated(tmp_path / "sky", 12)
    catalogue, image = tmp_path / "sky" / "catalogue.csv", tmp_path / "sky" / "images" / "0003.jpg"
    image.rename(tmp_path / "0003.jpg")
    broken = tmp_path / "sky" / "images" / "0005.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    options = [*OPTIONS, "--max_failure_fraction", 0.5]
    first = predict(catalogue, trees, *options)
    assert list(open_output(first.output).failures()["id_str"]) == ["gal 0003", "gal 0005"]
    (tmp_path / "0003.jpg").rename(image)
    predict(catalogue, trees, *options, output=first.output)
    assert (first.output / "samples" / "part-0000000_1.parquet").exists()
    output = open_output(first.output)
    assert (output.predicted, output.failed) == (11, 1)
    samples = output.samples()
    ids = list(samples["id_str"])
    assert ids == sorted(ids) and "gal 0003" in ids
    oracle.assert_same_samples(samples, pd.read_parquet(first.output / "samples"))


def test_representations(represent, few, trees):
    result = represent(few, trees, "--snippet_size", 10, "--carry", "ra")
    output = open_output(result.output)
    assert output.command == "represent" and len(output.failures()) == 0
    for member in "ab":
        expected = pd.read_parquet(result.output / "representations" / member)
        pd.testing.assert_frame_equal(output.representations(member), expected)
    with pytest.raises(UserError, match="has members a, b: name one"):
        output.representations()
    with pytest.raises(UserError, match=r"has no member 'c' \(choose from a, b\)"):
        output.representations("c")
    for name in ("friendly", "advanced", "samples"):
        with pytest.raises(UserError, match=r"is an output of represent: .* not part of it"):
            getattr(output, name)()
    one = represent(few, trees[0])
    assert len(open_output(one.output).representations()) == 23


def test_an_aggregate(predict, few, trees, tmp_path):
    """Samples are those of its sources, in the order of the aggregate: members of both, no sample twice."""
    whole = predict(few, trees, *OPTIONS).output
    one, other = (predict(few, trees[number], *OPTIONS).output for number in range(2))
    again = predict(few, trees[0], "--passes", 1, "--snippet_size", 4).output
    result = aggregate(tmp_path / "both", one, other, again)
    assert result.code == 0, result.err
    output = open_output(result.output)
    assert (output.command, output.predicted, output.members) == ("aggregate", 23, ("a", "b"))
    expected = pd.read_parquet(whole / "samples")
    pd.testing.assert_frame_equal(output.samples(), expected, rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(output.advanced(), result.table("advanced"))
    assert {path.rpartition("/")[0] for path in output.paths["samples"]} == {
        str(folder / "samples") for folder in (one, other, again)
    }


def test_an_incomplete_aggregate_has_the_samples_that_there_are(predict, few, trees, tmp_path):
    one = predict(few, trees[0], *OPTIONS).output
    half = predict(few, trees[1], *OPTIONS, "--limit", 12).output
    result = aggregate(tmp_path / "kept", one, half, options=("--incomplete", "keep"))
    assert result.code == 0, result.err
    samples = open_output(result.output).samples()
    counts = samples.groupby("member")["id_str"].nunique().to_dict()
    assert counts == {"a": 23, "b": 12} and len(samples) == 2 * 35
    ids = list(samples["id_str"])
    assert ids == sorted(ids)


def test_a_galaxy_less_output(predict, trees, tmp_path):
    """All galaxies failed: tables are there, without a row."""
    galaxies.simulated(tmp_path / "sky", 3)
    for path in (tmp_path / "sky" / "images").iterdir():
        path.write_bytes(b"no image")
    result = predict(tmp_path / "sky" / "catalogue.csv", trees, "--max_failure_fraction", 1)
    output = open_output(result.output)
    assert (output.predicted, output.failed, len(output.failures())) == (0, 3, 3)
    assert len(output.friendly()) == len(output.samples()) == 0
    assert "pass" in output.samples().columns


def test_what_is_no_output(finished, tmp_path):
    with pytest.raises(UserError, match=r"there is no output .*/nowhere"):
        open_output(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not a complete output: it has no manifest\.json"):
        open_output(tmp_path)
    for text in ("{", "[]", json.dumps({"command": "ls"})):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"cannot read .*manifest.json|is not a manifest of this program"):
            open_output(tmp_path)


def test_damaged_and_missing_files(finished):
    output = open_output(finished)
    with pytest.raises(UserError, match="is an output of predict: representations are not part of it"):
        output.representations("a")
    path = output.paths["friendly"][0]
    oracle.damage(finished / "friendly" / path.rpartition("/")[2])
    with pytest.raises(UserError, match=rf"cannot read {path}"):
        output.friendly()
    (finished / "samples" / "part-0000001.parquet").unlink()
    with pytest.raises(UserError, match=r"part-0000001\.parquet is missing"):
        output.samples()
    shutil.rmtree(finished / "_plan")
    with pytest.raises(UserError, match=r"has no _plan/plan\.json any more"):
        output.samples()
