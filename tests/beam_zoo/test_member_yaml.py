"""A member's YAML file: what it may say, and the line that a mistake ends in."""

import os

import pytest
import yaml

from beam_zoo.errors import UserError
from beam_zoo.members import member as members
from tests import checkpoints

RIGHT = {"name": "m", "zoobot_class": "ZoobotTree", "checkpoint": "a.ckpt", "view": "minimal"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpont": "x"}, "no key 'checkpont' (did you mean 'checkpoint'?)"),
        ({"source": "x"}, "no key 'source'"),
        ({"name": None}, "name is missing"),
        ({"view": None}, "view is missing"),
        ({"name": 3}, "name must be text, not 3"),
        ({"name": "a/b"}, "name 'a/b' may hold letters"),
        ({"name": "-a"}, "starts with a letter or a digit"),
        ({"name": "a" * 101}, "100 bytes at most"),
        ({"zoobot_class": "ZooBotTree"}, "no zoobot_class 'ZooBotTree' (did you mean 'ZoobotTree'?)"),
        ({"greyscale": "yes"}, "greyscale must be true or false, not 'yes'"),
        ({"trust_checkpoint": 1}, "trust_checkpoint must be true or false, not 1"),
        ({"test_time_dropout": "on"}, "test_time_dropout must be checkpoint, true or false, not 'on'"),
        ({"test_time_dropout": 1}, "test_time_dropout must be checkpoint, true or false, not 1"),
        ({"class_names": ["a"]}, "class_names are for a FinetuneableZoobotClassifier"),
        ({"value_name": "a"}, "value_name is for a FinetuneableZoobotRegressor"),
        (
            {"zoobot_class": "FinetuneableZoobotClassifier", "class_names": [True, False]},
            "quote yes, no and numbers",
        ),
        (
            {"zoobot_class": "FinetuneableZoobotClassifier", "class_names": ["a", "a"]},
            "class_names has a name twice",
        ),
        (
            {"zoobot_class": "FinetuneableZoobotRegressor", "schema": "x"},
            "a regressor has no schema: remove it",
        ),
        ({"schema": ["x"]}, "schema must be a name in zoobot.shared.schemas or a YAML file"),
        ({"schema": "none.yaml"}, "none.yaml: No such file"),
        ({"view": "minmal"}, "no base 'minmal' in galaxy_datasets (did you mean 'minimal'?)"),
        ({"view": ["minimal"]}, "view must be a name or a mapping"),
        (
            {"view": {"base": "minimal", "output_siz": 3}},
            "no setting 'output_siz' in galaxy_datasets (did you mean",
        ),
        (
            {"view": {"base": "minimal", "output_size": 0}},
            "output_size must be a number of pixels from 1 to 4096",
        ),
        ({"view": {"base": "minimal", "output_size": True}}, "output_size must be a number of pixels"),
        ({"view": {"base": "minimal", "output_size": 100_000}}, "output_size must be a number of pixels"),
        ({"view": {"base": "minimal", "flip_prob": 2}}, "galaxy_datasets refuses these settings"),
        ({"view": {"base": "minimal", "center_crop": "${oc.env:HOME}"}}, "is not filled in"),
        ({"view": {"base": "minimal", "random_affine": False}}, "leave an image its own size"),
        ({"view": {"base": "minimal", "greyscale": True}}, "set greyscale in the member's YAML"),
        ({"view": {"base": "minimal", "fixed_crop": {"lower_left_x": 1}}}, "fixed_crop needs FITS images"),
    ],
)
def test_a_wrong_yaml(tmp_path, changes, words):
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**RIGHT, **changes}.items() if v is not None}))
    with pytest.raises(UserError) as caught:
        members.read_member(str(path))
    line = str(caught.value)
    assert words in line and line.startswith((f"{path}: ", "cannot read"))
    assert "\n" not in line


@pytest.mark.parametrize(
    "text", ["", "- a", "a: [", "3: x", "a: !!python/object/apply:os.mkdir [ran]", "\x00"]
)
def test_not_a_mapping(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"m\.yaml (must hold a mapping|is not plain YAML)"):
        members.read_member(str(path))
    assert os.listdir(tmp_path) == ["m.yaml"]


def test_paths_start_at_the_yaml_file(tmp_path, monkeypatch):
    path = checkpoints.member(
        tmp_path / "m.yaml", "../a.ckpt", zoobot_class="ZoobotEncoder", encoder="x/e.ckpt"
    )
    monkeypatch.chdir("/")
    spec = members.read_member(os.path.relpath(path))
    assert spec.checkpoint == str(tmp_path.parent / "a.ckpt")
    assert spec.encoder == str(tmp_path / "x/e.ckpt")
    assert spec.view["output_size"] == 64 and spec.test_time_dropout is None
    for remote in ("gs://bucket/a.ckpt", "hf_hub:owner/name"):
        assert members.read_member(str(checkpoints.member(path, remote))).checkpoint == remote
    timms = checkpoints.member(path, "hf-hub:owner/name", encoder="hf-hub:owner/name")
    spec = members.read_member(str(timms))
    assert spec.checkpoint == spec.encoder == "hf_hub:owner/name"


def test_a_view_takes_what_galaxy_datasets_takes(tmp_path):
    crop = {
        "base": "fast",
        "center_crop": False,
        "random_resized_crop": {"scale": [0.7, 0.8], "ratio": [0.9, 1.1]},
    }
    erase = {
        "base": "minimal",
        "erase_iterations": 2,
        "random_erasing": {"p": 1.0, "scale": [0.1, 0.2], "ratio": [1, 1]},
    }
    for view in ("default", "minimal", "fast", crop, erase, {"base": "fast", "output_size": [64, 96]}):
        spec = members.read_member(str(checkpoints.member(tmp_path / "m.yaml", "a.ckpt", view=view)))
        assert spec.view["greyscale"] is False
