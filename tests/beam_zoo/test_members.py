"""A member that does not fit ends in one line, before any image is opened and with nothing written."""

import os
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from zoobot.shared import schemas

from beam_zoo.members import member as members
from tests import checkpoints

RINGS = schemas.gz_rings_schema
TREE = {"zoobot_class": "FinetuneableZoobotTree", "encoder": checkpoints.ARCHITECTURE}
CLASSIFIER = {"zoobot_class": "FinetuneableZoobotClassifier", "encoder": checkpoints.ARCHITECTURE}
REGRESSOR = {"zoobot_class": "FinetuneableZoobotRegressor", "encoder": checkpoints.ARCHITECTURE}


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of checkpoints, right and wrong."""
    folder = tmp_path_factory.mktemp("made")
    tree = checkpoints.tree(folder / "tree.ckpt")
    checkpoints.tree(folder / "grey.ckpt", channels=1)
    checkpoints.tree(folder / "dr5.ckpt", schema="decals_dr5_ortho_schema")
    checkpoints.finetuned("FinetuneableZoobotTree", folder / "rings.ckpt", schema=RINGS)
    checkpoints.finetuned("FinetuneableZoobotClassifier", folder / "classes.ckpt", num_classes=3)
    checkpoints.finetuned("FinetuneableZoobotClassifier", folder / "two.ckpt", num_classes=2)
    checkpoints.finetuned("FinetuneableZoobotRegressor", folder / "value.ckpt")
    checkpoints.zoobot_encoder(folder / "encoder.ckpt")
    data = tree.read_bytes()
    (folder / "truncated.ckpt").write_bytes(data[: len(data) // 2])
    (folder / "empty.ckpt").write_bytes(b"")
    (folder / "text.ckpt").write_text("<html>not found</html>")
    (folder / "pointer.ckpt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "broken.safetensors").write_bytes(b"123")
    (folder / "folder.ckpt").mkdir()
    os.mkfifo(folder / "pipe.ckpt")
    torch.save([1, 2], folder / "list.ckpt")
    torch.save(checkpoints.encoder(0), folder / "module.ckpt")
    torch.save({"state_dict": {1: torch.zeros(1)}}, folder / "numbers.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": "none"}, folder / "settings.ckpt")
    content = torch.load(tree, weights_only=True)
    content["hyper_parameters"]["architecture_name"] = "test_convnext"
    torch.save(content, folder / "architecture.ckpt")
    content["hyper_parameters"]["architecture_name"] = "test_resnett"
    torch.save(content, folder / "unknown.ckpt")
    return folder


@pytest.fixture
def refused(predict, represent, made, tmp_path, monkeypatch):
    """Checks that a command ends in one line that holds these words, without a look at any image."""
    monkeypatch.setattr("pipelines.probe.read_bytes", lambda *args: pytest.fail("an image was opened"))
    catalogue = tmp_path / "catalogue.csv"
    catalogue.write_text("id_str,file_loc\na,nowhere/a.jpg\nb,nowhere/b.jpg\n")

    def check(words: str, *specs: dict, command: str = "predict") -> str:
        paths = []
        for number, (name, settings) in enumerate(spec.popitem() for spec in specs):
            path = tmp_path / f"m{number}.yaml"
            paths.append(checkpoints.member(path, **{"checkpoint": made / name, **settings}))
        result = {"predict": predict, "represent": represent}[command](catalogue, paths)
        assert result.code == 2, result.err
        *notes, line = result.err.splitlines()
        assert line.startswith("error: ") and words in line, result.err
        assert not notes, result.err
        assert not result.output.exists()
        return line

    return check


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("truncated.ckpt", "truncated.ckpt is not a checkpoint: it is cut short or damaged"),
        ("empty.ckpt", "empty.ckpt is not a checkpoint: it is empty"),
        ("text.ckpt", "text.ckpt is not a checkpoint: it starts with b'<html>not fo'"),
        ("pointer.ckpt", "pointer.ckpt is not a checkpoint: it is a git-lfs pointer"),
        ("broken.safetensors", "broken.safetensors is not a checkpoint: "),
        ("list.ckpt", "list.ckpt holds a list, not a Lightning checkpoint or a state dict"),
        ("module.ckpt", "module.ckpt is refused: it holds timm.models.resnet.ResNet"),
        ("numbers.ckpt", "numbers.ckpt has no state dict of tensors"),
        ("settings.ckpt", "settings.ckpt has hyper_parameters that are no mapping"),
        ("tre.ckpt", "(did you mean 'tree.ckpt'?)"),
        ("folder.ckpt", "folder.ckpt: it is not a file"),
        ("pipe.ckpt", "pipe.ckpt: it is not a file"),
        ("architecture.ckpt", "architecture.ckpt does not fit ZoobotTree: it lacks"),
        ("unknown.ckpt", "unknown.ckpt does not make a ZoobotTree: Unknown model (test_resnett)"),
        (
            "rings.ckpt",
            "the checkpoint is of a FinetuneableZoobotTree: set zoobot_class: FinetuneableZoobotTree",
        ),
        ("encoder.ckpt", "encoder.ckpt does not make a ZoobotTree"),
        ("grey.ckpt", "the checkpoint takes greyscale images: set greyscale: true"),
    ],
)
def test_not_this_checkpoint(refused, name, words):
    assert words in refused(words, {name: {}})


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("tree.ckpt", {"greyscale": True}, "the checkpoint takes colour images: set greyscale: false"),
        (
            "tree.ckpt",
            {"encoder": "resnet18"},
            "its checkpoint is a test_resnet, not a resnet18: remove encoder",
        ),
        ("tree.ckpt", CLASSIFIER | {"class_names": ["a", "b"]}, "is of a ZoobotTree: set zoobot_class"),
        ("rings.ckpt", TREE | {"encoder": None}, "encoder is missing"),
        (
            "rings.ckpt",
            TREE | {"encoder": "test_resne"},
            "timm has no architecture 'test_resne' (did you mean",
        ),
        ("rings.ckpt", TREE | {"encoder": "test_resnet.nope"}, "timm cannot make 'test_resnet.nope'"),
        (
            "rings.ckpt",
            TREE | {"encoder": "test_vit"},
            "rings.ckpt does not fit FinetuneableZoobotTree: it lacks",
        ),
        ("rings.ckpt", TREE | {"encoder": "./none.ckpt"}, "encoder: there is no checkpoint"),
        ("rings.ckpt", TREE | {"greyscale": True}, "takes colour images: set greyscale: false"),
        ("classes.ckpt", CLASSIFIER, "class_names are missing, and the checkpoint has 3 classes"),
        (
            "classes.ckpt",
            CLASSIFIER | {"class_names": ["a", "b"]},
            "class_names are 2, and the checkpoint has 3",
        ),
        ("classes.ckpt", REGRESSOR, "the checkpoint is of a FinetuneableZoobotClassifier"),
        ("value.ckpt", REGRESSOR, "value_name is missing"),
        ("encoder.ckpt", {"zoobot_class": "ZoobotEncoder"}, "use python -m pipelines.represent"),
        ("tree.ckpt", {"checkpoint": "hf_hub:a/b/c"}, "hf_hub:a/b/c is not a hub name"),
        (
            "tree.ckpt",
            {"checkpoint": "nosuch://bucket/a.ckpt"},
            "cannot read the checkpoint nosuch://bucket/a.ckpt",
        ),
    ],
)
def test_not_these_settings(refused, name, settings, words):
    refused(words, {name: settings})


def test_an_encoder_path_that_is_no_zoobot_tree(refused, made):
    refused(
        "is not a ZoobotTree checkpoint that names",
        {"rings.ckpt": TREE | {"encoder": str(made / "value.ckpt")}},
    )
    refused("it is not a file", {"rings.ckpt": TREE | {"encoder": str(made / "pipe.ckpt")}})


def schema_file(folder: Path, pairs: dict, dependencies: dict) -> str:
    path = folder / "schema.yaml"
    path.write_text(
        yaml.safe_dump({"question_answer_pairs": pairs, "dependencies": dependencies}, sort_keys=False)
    )
    return str(path)


def test_another_schema(refused, tmp_path):
    refused(
        "the checkpoint's questions are not the schema's: its answer 0 is 'smooth-or-featured-dr8_smooth', "
        "where the schema has 'smooth-or-featured-dr5_smooth'",
        {"tree.ckpt": {"schema": "decals_dr5_ortho_schema"}},
    )
    swapped = schema_file(tmp_path, {"ring": ["_no", "_yes"]}, {"ring": None})
    refused(
        "its answer 0 is 'ring_yes', where the schema has 'ring_no'",
        {"rings.ckpt": TREE | {"schema": swapped}},
    )
    longer = schema_file(tmp_path, {"ring": ["_yes", "_no", "_maybe"]}, {"ring": None})
    refused("it has 2 answers, where the schema has 3", {"rings.ckpt": TREE | {"schema": longer}})
    refused(
        "no 'gz_ring_schema' (did you mean 'gz_rings_schema'?)",
        {"rings.ckpt": TREE | {"schema": "gz_ring_schema"}},
    )


def test_another_width_than_its_own_questions(refused, made):
    content = torch.load(made / "tree.ckpt", weights_only=True)
    content["hyper_parameters"]["output_dim"] = 30
    for key in ("head.1.0.weight", "head.1.0.bias"):
        content["state_dict"][key] = content["state_dict"][key][:30]
    torch.save(content, made / "narrow.ckpt")
    words = "the checkpoint has 30 outputs, and the schema 34 answers"
    refused(words, {"narrow.ckpt": {}})
    refused(words, {"narrow.ckpt": {"schema": checkpoints.TREE_SCHEMA}})


def test_members_that_do_not_go_together(refused, tmp_path):
    def tree(**settings):
        return {"tree.ckpt": settings}

    refused("two members are named 'm'", tree(name="m"), tree(name="m"))
    refused("m0 and m1 have different questions and answers", tree(), {"dr5.ckpt": {}})
    refused(
        "m0 and m1 do not go together: a tree and a regressor",
        tree(),
        {"value.ckpt": REGRESSOR | {"value_name": "v"}},
    )
    refused(
        "m0 and m1 have different class_names",
        {"two.ckpt": CLASSIFIER | {"class_names": ["a", "b"]}},
        {"two.ckpt": CLASSIFIER | {"class_names": ["b", "a"]}},
    )
    refused(
        "m0 and m1 have different value_name",
        {"value.ckpt": REGRESSOR | {"value_name": "a"}},
        {"value.ckpt": REGRESSOR | {"value_name": "b"}},
    )
    pairs = members.schema_json(schemas.decals_dr8_ortho_schema)["question_answer_pairs"]
    flat = schema_file(tmp_path, pairs, dict.fromkeys(pairs))
    refused("m0 and m1 have schemas with different dependencies", tree(), tree(schema=flat))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_runs_only_when_it_is_trusted(
    predict, refused, few, made, tmp_path, monkeypatch, how
):
    folder, name = tmp_path / "ran", f"evil-{how}.ckpt"
    content = torch.load(made / "tree.ckpt", weights_only=True) | {"extra": Payload(folder)}
    if how == "torch":
        torch.save(content, made / name)
    else:
        (made / name).write_bytes(pickle.dumps(content["extra"], protocol=4))
    line = refused("set trust_checkpoint: true in the member's YAML only if you know who made it", {name: {}})
    assert (f"holds {os.mkdir.__module__}.mkdir" in line) == (how == "torch")
    assert not folder.exists()
    monkeypatch.undo()
    trusted = predict(
        few, checkpoints.member(tmp_path / "m.yaml", made / name, trust_checkpoint=True), "--dry_run"
    )
    assert folder.exists()
    if how == "torch":
        assert trusted.code == 0, trusted.err
    else:
        assert trusted.code == 2 and "not a checkpoint" in trusted.err


def test_represent_refuses_too(refused):
    refused("encoder is missing", {"encoder.ckpt": {"zoobot_class": "ZoobotEncoder"}}, command="represent")
    refused(
        "encoder.ckpt does not fit ZoobotEncoder",
        {"encoder.ckpt": {"zoobot_class": "ZoobotEncoder", "encoder": "test_vit"}},
        command="represent",
    )
