"""Representations are the encoder's features."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tests import checkpoints, oracle

IN_THREE_SNIPPETS = ["--snippet_size", 4, "--passes", 1]


def features(table: pd.DataFrame) -> np.ndarray:
    return np.stack(table["feature"].to_numpy())


def loop(encoder, transform, paths) -> np.ndarray:
    with torch.inference_mode():
        return np.stack([encoder(transform(oracle.image(path))[None]).numpy()[0] for path in paths])


def test_features_of_two_classes(represent, few, tmp_path):
    """A ZoobotEncoder and the encoder of a ZoobotTree, in one run, against zoobot's own."""
    encoder = checkpoints.zoobot_encoder(tmp_path / "e.ckpt", seed=3)
    tree = checkpoints.tree(tmp_path / "t.ckpt", seed=4)
    members = [
        checkpoints.member(
            tmp_path / "enc.yaml", encoder, zoobot_class="ZoobotEncoder", encoder="test_resnet"
        ),
        checkpoints.member(tmp_path / "tree.yaml", tree, view={"base": "fast", "output_size": 80}),
    ]
    result = represent(few, members, "--snippet_size", 10, "--batch_size", 4, "--carry", "ra")
    assert result.code == 0, result.err
    paths = oracle.paths_of(few)
    expected = {
        "enc": loop(checkpoints.encoder(3).eval(), oracle.view(output_size=64), paths),
        "tree": loop(oracle.load_tree(tree).encoder, oracle.view(base="fast", output_size=80), paths),
    }
    for name, values in expected.items():
        table = result.table(f"representations/{name}")
        assert list(table.columns) == ["id_str", "ra", "feature"]
        assert list(table["id_str"]) == list(pd.read_csv(few)["id_str"])
        np.testing.assert_allclose(features(table), values, rtol=1e-4, atol=1e-5)
        assert features(table).dtype == np.float32
    manifest = json.loads((result.output / "manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_predicted"], manifest["rows_failed"]) == (23, 23, 0)
    assert {p.name for p in result.output.iterdir() if p.name[0] not in "._"} == {
        "representations", "failures", "manifest.json",
    }  # fmt: skip


def test_the_mean_over_distinct_views(represent, few, tmp_path):
    from beam_zoo.inference import randomness

    tree = checkpoints.tree(tmp_path / "t.ckpt", seed=4)
    member = checkpoints.member(tmp_path / "t.yaml", tree, view={"base": "default", "output_size": 64})
    result = represent(few, member, "--passes", 3, "--seed", 5)
    table = result.table("representations/t")
    keys = randomness.draw_keys(
        randomness.galaxy_keys(list(table["id_str"])), seed=5, member="t", purpose="view", passes=range(3)
    )
    transform, encoder = oracle.view(base="default", output_size=64), oracle.load_tree(tree).encoder
    for galaxy, path in enumerate(oracle.paths_of(few)):
        views = []
        for key in keys[galaxy]:
            torch.manual_seed(int(key))
            views.append(transform(oracle.image(path)))
        with torch.inference_mode():
            expected = encoder(torch.stack(views)).mean(0).numpy()
        np.testing.assert_allclose(features(table)[galaxy], expected, rtol=1e-4, atol=1e-5)


def test_resume_and_failures(represent, few, tmp_path):
    """A galaxy without an image is one failures row, in no member's table; a lost part is made again."""
    rows = pd.read_csv(few)
    rows.loc[7, "file_loc"] = "images/nowhere.jpg"
    rows.to_csv(tmp_path / "c.csv", index=False)
    members = []
    for name, seed in (("m", 1), ("n", 2)):
        path = checkpoints.zoobot_encoder(tmp_path / f"{name}.ckpt", seed=seed)
        settings = {"zoobot_class": "ZoobotEncoder", "encoder": "test_resnet"}
        members.append(checkpoints.member(tmp_path / f"{name}.yaml", path, **settings))
    options = ["--image_root", few.parent, "--snippet_size", 10]
    first = represent(tmp_path / "c.csv", members, *options)
    assert first.code == 0, first.err
    failures = first.table("failures")
    assert list(failures["id_str"]) == [rows.loc[7, "id_str"]] and failures["may_pass"].all()
    before = {name: first.table(f"representations/{name}") for name in ("m", "n")}
    for table in before.values():
        assert list(table["id_str"]) == list(rows["id_str"].drop(7))
    (first.output / "representations" / "n" / "part-0000001.parquet").unlink()
    second = represent(tmp_path / "c.csv", members, *options, output=first.output)
    assert second.code == 0, second.err
    for name, table in before.items():
        pd.testing.assert_frame_equal(table, second.table(f"representations/{name}"))
    assert json.loads((second.output / "manifest.json").read_text())["rows_reused"] == 12


def test_predict_refuses_an_encoder(predict, few, tmp_path):
    path = checkpoints.zoobot_encoder(tmp_path / "e.ckpt")
    member = checkpoints.member(
        tmp_path / "e.yaml", path, zoobot_class="ZoobotEncoder", encoder="test_resnet"
    )
    result = predict(few, member)
    assert result.code == 2 and "pipelines.represent" in result.err


def encoders(folder: Path) -> list[Path]:
    """Two ZoobotEncoder members, m and n."""
    made = []
    for seed, name in enumerate(("m", "n")):
        path = checkpoints.zoobot_encoder(folder / f"{name}.ckpt", seed=seed)
        settings = {"zoobot_class": "ZoobotEncoder", "encoder": checkpoints.ARCHITECTURE}
        made.append(checkpoints.member(folder / f"{name}.yaml", path, **settings))
    return made


def test_representations_stopped_between_two_members(represent, own_catalogue, tmp_path):
    """An image has gone, another has come since: all members end with the same galaxies."""
    images = own_catalogue.parent / "images"
    (images / "0001.jpg").rename(tmp_path / "0001.jpg")
    options = [*IN_THREE_SNIPPETS, "--max_failure_fraction", 0.5]
    first = represent(own_catalogue, encoders(tmp_path), *options)
    (first.output / "representations" / "n" / "part-0000000.parquet").unlink()
    (tmp_path / "0001.jpg").rename(images / "0001.jpg")
    (images / "0002.jpg").unlink()
    second = represent(own_catalogue, encoders(tmp_path), *options, output=first.output)
    assert second.code == 0, second.err
    ids = [list(second.table(f"representations/{name}")["id_str"]) for name in ("m", "n")]
    failed = list(second.table("failures")["id_str"])
    assert ids[0] == ids[1] and failed == ["gal 0002"]
    assert sorted(ids[0] + failed) == [f"gal {n:04d}" for n in range(12)]


def test_representations_of_other_galaxies_are_not_believed(represent, own_catalogue, tmp_path):
    """Members' parts that do not belong together are an error that names them, never a table."""
    first = represent(own_catalogue, encoders(tmp_path), *IN_THREE_SNIPPETS)
    (own_catalogue.parent / "images" / "0001.jpg").unlink()
    other = represent(own_catalogue, encoders(tmp_path), *IN_THREE_SNIPPETS, "--max_failure_fraction", 0.5)
    name = "representations/n/part-0000000.parquet"
    shutil.copy(other.output / name, first.output / name)
    shutil.rmtree(first.output / "_tables")
    second = represent(own_catalogue, encoders(tmp_path), *IN_THREE_SNIPPETS, output=first.output)
    assert second.code == 2 and "hold different galaxies: delete both" in second.err
