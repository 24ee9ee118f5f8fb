"""The pipeline's numbers are zoobot's own."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from zoobot.shared import load_predictions, schemas

from tests import checkpoints, oracle

SCHEMA = schemas.decals_dr8_ortho_schema
VIEW = {"base": "minimal", "output_size": 64}


@pytest.fixture(scope="module")
def run(tmp_path_factory, catalogue, trees):
    """Two trees of 3 passes over the real images, in several snippets and batches."""
    from pipelines.predict import main

    output = tmp_path_factory.mktemp("numbers") / "out"
    argv = ["--catalogue", catalogue, "--models", *trees, "--output", output, "--passes", 3]
    argv += ["--snippet_size", 30, "--batch_size", 16, "--carry", "ra"]
    assert main([str(word) for word in argv]) == 0
    return output


def test_tables_are_those_of_zoobot(run, tmp_path):
    samples = pd.read_parquet(run / "samples")
    ids = samples[["id_str"]].drop_duplicates(ignore_index=True)
    concentrations = oracle.samples_array(samples, SCHEMA.label_cols).astype(np.float64)
    assert concentrations.shape == (len(ids), 34, 2, 3)
    theirs = load_predictions.concentrations_to_summary_parquet(
        str(tmp_path / "summary.parquet"), SCHEMA, ids, concentrations, SCHEMA.label_cols
    )
    for name, expected in zip(("friendly", "advanced"), theirs, strict=True):
        ours = pd.read_parquet(run / name)
        assert list(ours["id_str"]) == list(ids["id_str"])
        assert set(ours.columns) - {"ra"} == set(expected.columns)
        for column in expected.columns.drop("id_str"):
            # Identical NaN patterns and numbers: assert_allclose compares NaN with NaN as equal.
            np.testing.assert_allclose(ours[column], expected[column], atol=1e-6, rtol=0, err_msg=column)
    masked = pd.read_parquet(run / "friendly").isna().to_numpy()
    assert 0.02 < masked.mean() < 0.98, "the mask must matter for this test to mean something"


def test_carried_columns_are_those_of_the_catalogue(run, catalogue):
    expected = pd.read_csv(catalogue, dtype={"id_str": str}, float_precision="round_trip")
    for name in ("friendly", "advanced"):
        table = pd.read_parquet(run / name)
        assert list(table.columns[:2]) == ["id_str", "ra"]
        np.testing.assert_array_equal(table["ra"], expected["ra"])


def test_samples_without_dropout_are_those_of_a_plain_loop(predict, catalogue, trees):
    models = []
    for path in trees:
        models.append(path.with_name(f"{path.stem}-still.yaml"))
        checkpoints.member(models[-1], path.with_suffix(".ckpt"), test_time_dropout=False)
    result = predict(catalogue, models, "--passes", "2", "--batch_size", "20", "--snippet_size", "50")
    assert result.code == 0
    got = oracle.samples_array(result.table("samples"), SCHEMA.label_cols)
    for index, path in enumerate(trees):
        model = oracle.load_tree(path.with_suffix(".ckpt"), test_time_dropout=False)
        expected = oracle.predict_loop(model, oracle.view(output_size=64), oracle.paths_of(catalogue))
        for number in range(2):
            np.testing.assert_allclose(got[:, :, index, number], expected, rtol=1e-4)
    assert "all passes are identical" in result.err


def test_dropout_is_zoobots_with_our_draws(predict, few, trees, monkeypatch):
    """zoobot's own model, with the masks of (seed, galaxy, member, pass) in F.dropout, gives the samples."""
    from beam_zoo.inference import randomness

    result = predict(few, trees[:1], "--passes", "4", "--seed", "7")
    got = oracle.samples_array(result.table("samples"), SCHEMA.label_cols)
    ids = list(result.table("friendly")["id_str"])
    model = oracle.load_tree(trees[0].with_suffix(".ckpt"))
    keys = randomness.draw_keys(
        randomness.galaxy_keys(ids), seed=7, member=trees[0].stem, purpose="dropout", passes=range(4)
    )
    transform = oracle.view(output_size=64)
    current = {}
    monkeypatch.setattr(
        torch.nn.functional, "dropout", lambda x, p, training, inplace: x * current["mask"] if training else x
    )
    with torch.inference_mode():
        for galaxy, path in enumerate(oracle.paths_of(few)):
            batch = transform(oracle.image(path))[None]
            for number in range(4):
                key = keys[galaxy : galaxy + 1, number : number + 1]
                current["mask"] = randomness.keep_masks(key, 96, 0.2, torch.device("cpu"))[0]
                expected = model.predict_step(batch, 0).numpy()[0]
                np.testing.assert_allclose(got[galaxy, :, 0, number], expected, rtol=1e-4)


def test_random_views_are_galaxy_datasets_own(predict, few, tmp_path):
    """Each pass sees galaxy_datasets' transform as it is after torch.manual_seed(key)."""
    from beam_zoo.inference import randomness

    path = checkpoints.tree(tmp_path / "r.ckpt", test_time_dropout=False)
    member = checkpoints.member(tmp_path / "r.yaml", path, view={"base": "default", "output_size": 64})
    result = predict(few, member, "--passes", "3", "--batch_size", "5")
    got = oracle.samples_array(result.table("samples"), SCHEMA.label_cols)
    ids = list(result.table("friendly")["id_str"])
    keys = randomness.draw_keys(
        randomness.galaxy_keys(ids), seed=0, member="r", purpose="view", passes=range(3)
    )
    model = oracle.load_tree(path)
    transform = oracle.view(base="default", output_size=64)
    with torch.inference_mode():
        for galaxy, image in enumerate(oracle.paths_of(few)):
            for number in range(3):
                torch.manual_seed(int(keys[galaxy, number]))
                expected = model(transform(oracle.image(image))[None]).numpy()[0]
                np.testing.assert_allclose(got[galaxy, :, 0, number], expected, rtol=1e-4)
    assert np.ptp(got, axis=3).max() > 0.1, "views must differ between passes"
    assert "3 encoder and 3 head passes" in result.err


def test_manifest(run, trees):
    import hashlib

    manifest = json.loads((run / "manifest.json").read_text())
    rows = len(pd.read_parquet(run / "friendly"))
    assert manifest["rows_in"] == manifest["rows_predicted"] + manifest["rows_failed"] == rows
    assert (manifest["rows_failed"], manifest["rows_reused"], manifest["seed"]) == (0, 0, 0)
    for member, path in zip(manifest["members"], trees, strict=True):
        assert member["sha256"] == hashlib.sha256(path.with_suffix(".ckpt").read_bytes()).hexdigest()
    for file in manifest["tables"]:
        assert hashlib.sha256((run / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert manifest["versions"]["zoobot"] and manifest["start"] <= manifest["end"]
    assert {p.name for p in run.iterdir() if p.name[0] not in "._"} == {
        "friendly", "advanced", "samples", "failures", "manifest.json",
    }  # fmt: skip
