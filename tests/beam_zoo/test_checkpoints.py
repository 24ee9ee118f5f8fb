"""Every Zoobot class gives, from what zoobot writes, what zoobot itself computes from it."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from zoobot.pytorch.estimators.define_model import ZoobotTree
from zoobot.pytorch.training import finetune
from zoobot.pytorch.training.representations import ZoobotEncoder
from zoobot.shared import schemas

from beam_zoo.errors import UserError
from beam_zoo.members import checkpoints as loading
from tests import checkpoints, oracle

GALAXIES = 5
RINGS = schemas.gz_rings_schema
SIZE = 64


def pixels(catalogue: Path, *, greyscale: bool = False, size: int = SIZE) -> torch.Tensor:
    """The view of the first galaxies, as galaxy_datasets makes it."""
    view = oracle.view(output_size=size, greyscale=greyscale)
    return torch.stack([view(oracle.image(path)) for path in oracle.paths_of(catalogue)[:GALAXIES]])


def zoobots_answer(cls: type, path: Path, images: torch.Tensor, **settings) -> np.ndarray:
    """What the class, loaded by zoobot, predicts: shape (galaxy, output)."""
    model = cls.load_from_checkpoint(path, map_location="cpu", weights_only=False, **settings).eval()
    with torch.inference_mode():
        out = model.predict_step(images if cls is ZoobotTree else {"image": images}, 0)
    return out.numpy().reshape(len(images), -1)


def samples_of(result) -> np.ndarray:
    """The samples of a run of one member and one pass: shape (galaxy, output)."""
    assert result.code == 0, result.err
    table = result.table("samples")
    return table.drop(columns=["id_str", "member", "pass"]).to_numpy()


def direct(cls: str, path: Path, architecture: str | None, images: torch.Tensor, **kwargs) -> np.ndarray:
    """What `build` makes of a checkpoint, called as zoobot calls it."""
    content = loading.parse(path.read_bytes(), str(path), trust=False)
    grey = images.shape[1] == 1
    model = loading.build(cls, content, architecture, kwargs, greyscale=grey, path=str(path))
    assert not model.training
    with torch.inference_mode():
        out = model.predict_step(images if cls == "ZoobotTree" else {"image": images}, 0)
    return out.numpy().reshape(len(images), -1)


def compare(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal, and not because all galaxies are equal."""
    assert theirs.std(axis=0).min() > 1e-5
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"channels": 1},
        {"timm_kwargs": {"global_pool": "max"}},
        # zoobot would download ImageNet's weights again at every load; they are in the checkpoint.
        {"architecture_name": "test_convnext", "scheduler_params": {"name": "plateau"}},
    ],
    ids=["colour", "greyscale", "timm_kwargs", "convnext"],
)
def test_zoobot_tree(predict, few, tmp_path, settings):
    path = checkpoints.tree(tmp_path / "m.ckpt", **{"test_time_dropout": False, **settings})
    grey = settings.get("channels") == 1
    images = pixels(few, greyscale=grey)
    theirs = zoobots_answer(ZoobotTree, path, images)
    compare(direct("ZoobotTree", path, None, images), theirs)
    member = checkpoints.member(tmp_path / "m.yaml", path, greyscale=grey)
    compare(samples_of(predict(few, member, "--passes", 1, "--limit", GALAXIES)), theirs)


def test_pretrained_in_timm_kwargs_downloads_nothing(monkeypatch, few, tmp_path):
    path = checkpoints.tree(tmp_path / "m.ckpt", test_time_dropout=False)
    content = torch.load(path, weights_only=True)
    theirs = zoobots_answer(ZoobotTree, path, pixels(few))
    content["hyper_parameters"]["timm_kwargs"] = {"pretrained": True}
    torch.save(content, path)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *args, **kwargs: pytest.fail("asked the hub")
    )
    compare(direct("ZoobotTree", path, None, pixels(few)), theirs)


def test_a_compiled_encoder(predict, few, tmp_path):
    with torch.compiler.set_stance("force_eager"):  # the names are what matters here, not the compiler
        path = checkpoints.tree(tmp_path / "m.ckpt", compile_encoder=True, test_time_dropout=False)
        theirs = zoobots_answer(ZoobotTree, path, pixels(few))
    assert any("_orig_mod." in key for key in torch.load(path, weights_only=True)["state_dict"])
    member = checkpoints.member(tmp_path / "m.yaml", path)
    compare(samples_of(predict(few, member, "--passes", 1, "--limit", GALAXIES)), theirs)


FINETUNED = {
    "tree": ("FinetuneableZoobotTree", {"schema": RINGS}, {"schema": "gz_rings_schema"}),
    "classifier": (
        "FinetuneableZoobotClassifier",
        {"num_classes": 3, "class_weights": [1.0, 2.0, 3.0]},
        {"class_names": ["a", "b", "c"]},
    ),
    "regressor": ("FinetuneableZoobotRegressor", {}, {"value_name": "size"}),
    "unit": ("FinetuneableZoobotRegressor", {"unit_interval": True, "loss": "mae"}, {"value_name": "size"}),
}


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("case", FINETUNED)
def test_finetuned(predict, few, tmp_path, case, channels):
    cls, saved, named = FINETUNED[case]
    path = checkpoints.finetuned(cls, tmp_path / "m.ckpt", channels=channels, **saved)
    images = pixels(few, greyscale=channels == 1)
    theirs = zoobots_answer(getattr(finetune, cls), path, images, encoder=checkpoints.encoder(9, channels))
    compare(direct(cls, path, checkpoints.ARCHITECTURE, images), theirs)
    member = checkpoints.member(
        tmp_path / "m.yaml",
        path,
        zoobot_class=cls,
        encoder=checkpoints.ARCHITECTURE,
        greyscale=channels == 1,
        **named,
    )
    compare(samples_of(predict(few, member, "--passes", 1, "--limit", GALAXIES)), theirs)


def test_a_regressor_of_one_galaxy(predict, few, tmp_path):
    path = checkpoints.finetuned("FinetuneableZoobotRegressor", tmp_path / "m.ckpt")
    theirs = zoobots_answer(
        finetune.FinetuneableZoobotRegressor, path, pixels(few)[:1], encoder=checkpoints.encoder(9)
    )
    member = checkpoints.member(
        tmp_path / "m.yaml",
        path,
        zoobot_class="FinetuneableZoobotRegressor",
        encoder=checkpoints.ARCHITECTURE,
        value_name="size",
    )
    result = predict(few, member, "--passes", 2, "--limit", 1, "--batch_size", 1)
    np.testing.assert_allclose(samples_of(result), np.repeat(theirs, 2, axis=0), rtol=1e-4)
    assert list(result.table("friendly").columns) == ["id_str", "size"]


def test_greyscale_is_read_from_the_weights(predict, few, tmp_path):
    """zoobot's `greyscale` says nothing about an encoder that was given in memory."""
    torch.manual_seed(0)
    model = finetune.FinetuneableZoobotTree(schema=RINGS, encoder=checkpoints.encoder(0, 1), timm_kwargs={})
    path = checkpoints.save(model, tmp_path / "m.ckpt")
    settings = {"zoobot_class": "FinetuneableZoobotTree", "encoder": checkpoints.ARCHITECTURE}
    colour = predict(few, checkpoints.member(tmp_path / "colour.yaml", path, **settings))
    assert colour.code == 2 and "takes greyscale images: set greyscale: true" in colour.err
    grey = checkpoints.member(tmp_path / "grey.yaml", path, greyscale=True, **settings)
    theirs = model.eval().predict_step({"image": pixels(few, greyscale=True)}, 0).detach().numpy()
    compare(samples_of(predict(few, grey, "--passes", 1, "--limit", GALAXIES)), theirs)


def test_the_encoder_of_a_zoobot_tree_by_its_path(predict, few, tmp_path):
    tree = checkpoints.tree(tmp_path / "tree.ckpt", timm_kwargs={"global_pool": "max"})
    content = torch.load(tree, weights_only=True)
    content["hyper_parameters"]["timm_kwargs"]["block_args"] = {"attn_layer": None}
    torch.save(content, tree)
    encoder = ZoobotTree.load_from_checkpoint(tree, map_location="cpu", weights_only=True).encoder
    model = finetune.FinetuneableZoobotTree(schema=RINGS, encoder=encoder, timm_kwargs={})
    path = checkpoints.save(model, tmp_path / "m.ckpt")
    theirs = model.eval().predict_step({"image": pixels(few)}, 0).detach().numpy()
    member = checkpoints.member(
        tmp_path / "m.yaml", path, zoobot_class="FinetuneableZoobotTree", encoder="./tree.ckpt"
    )
    result = predict(few, member, "--passes", 1, "--limit", GALAXIES)
    compare(samples_of(result), theirs)
    again = predict(few, member, "--passes", 1, "--limit", GALAXIES, output=result.output)
    assert again.code == 0, again.err


def test_a_vision_transformer_that_had_a_head(predict, few, tmp_path):
    torch.manual_seed(0)
    encoder = timm.create_model("test_vit3", num_classes=10)
    model = finetune.FinetuneableZoobotTree(schema=RINGS, encoder=encoder, timm_kwargs={})
    path = checkpoints.save(model, tmp_path / "m.ckpt")
    theirs = model.eval().predict_step({"image": pixels(few, size=160)}, 0).detach().numpy()
    member = checkpoints.member(
        tmp_path / "m.yaml",
        path,
        zoobot_class="FinetuneableZoobotTree",
        encoder="test_vit3",
        view={"base": "minimal", "output_size": 160},
    )
    compare(samples_of(predict(few, member, "--passes", 1, "--limit", GALAXIES)), theirs)
    checkpoints.member(tmp_path / "n.yaml", path, zoobot_class="FinetuneableZoobotTree", encoder="test_vit3")
    refused = predict(few, tmp_path / "n.yaml")
    assert refused.code == 2 and "the encoder cannot take 64 x 64 pixels" in refused.err


def test_settings_of_older_versions_are_left_out(few, tmp_path):
    path = checkpoints.finetuned("FinetuneableZoobotTree", tmp_path / "m.ckpt", schema=RINGS)
    images = pixels(few)
    before = direct("FinetuneableZoobotTree", path, checkpoints.ARCHITECTURE, images)
    content = loading.parse(path.read_bytes(), str(path), trust=False)
    content["hyper_parameters"] |= {"n_blocks": 5, "cosine_schedule": False}
    torch.save(content, path)
    np.testing.assert_array_equal(
        direct("FinetuneableZoobotTree", path, checkpoints.ARCHITECTURE, images), before
    )


def test_a_whole_training_checkpoint(tmp_path):
    """With optimizer and loops, as Lightning saves it by default."""
    import lightning

    torch.manual_seed(0)
    model = finetune.FinetuneableZoobotClassifier(
        num_classes=2, encoder=checkpoints.encoder(0), timm_kwargs={}, prog_bar=False, layer_decay=None
    )
    batch = {"image": torch.rand(4, 3, 32, 32), "label": torch.tensor([0, 1, 0, 1])}
    loader = torch.utils.data.DataLoader(
        [{k: v[i] for k, v in batch.items()} for i in range(4)], batch_size=4
    )
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False
    )
    trainer.fit(model, loader)
    saved = next((tmp_path / "checkpoints").glob("*.ckpt"))
    content = loading.parse(saved.read_bytes(), str(saved), trust=False)
    assert "optimizer_states" in torch.load(saved, weights_only=True)
    assert content["hyper_parameters"]["num_classes"] == 2


def features_of(result, name: str = "m") -> np.ndarray:
    assert result.code == 0, result.err
    return np.stack(result.table(f"representations/{name}")["feature"])


ENCODERS = ["zoobot_tree", "lightning", "lightning of a tree", "safetensors", "with classifier", "finetuned"]


@pytest.mark.parametrize("case", ENCODERS)
def test_features(represent, few, tmp_path, case):
    from safetensors.torch import save_file

    settings = {"zoobot_class": "ZoobotEncoder", "encoder": checkpoints.ARCHITECTURE}
    encoder, path = checkpoints.encoder(3), tmp_path / "m.ckpt"
    if case in ("zoobot_tree", "lightning of a tree"):
        checkpoints.tree(path)
        encoder = ZoobotTree.load_from_checkpoint(path, map_location="cpu", weights_only=True).encoder
        settings = {"zoobot_class": "ZoobotTree" if case == "zoobot_tree" else "ZoobotEncoder"}
    elif case == "lightning":
        checkpoints.save(ZoobotEncoder(encoder), path)
    elif case == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(encoder.state_dict(), path)
    elif case == "with classifier":
        encoder, path = timm.create_model(checkpoints.ARCHITECTURE, num_classes=7), tmp_path / "model.bin"
        torch.save(encoder.state_dict(), path)
        encoder.reset_classifier(0)
    else:
        made = checkpoints.finetuned("FinetuneableZoobotRegressor", path)
        content = torch.load(made, weights_only=False)["state_dict"]
        encoder.load_state_dict({k[8:]: v for k, v in content.items() if k.startswith("encoder.")})
        settings["zoobot_class"] = "FinetuneableZoobotRegressor"
    with torch.inference_mode():
        theirs = ZoobotEncoder(encoder).eval()(pixels(few)).numpy()
    member = checkpoints.member(tmp_path / "m.yaml", path, **settings)
    ours = features_of(represent(few, member, "--limit", GALAXIES))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_worker_refuses_a_checkpoint_that_has_changed(few, tmp_path):
    from beam_zoo.inference.handler import MemberHandler
    from beam_zoo.inference.settings import InferenceSettings
    from pipelines.command_line import parse
    from pipelines.prepare import prepare

    path = checkpoints.tree(tmp_path / "m.ckpt")
    member = checkpoints.member(tmp_path / "m.yaml", path)
    argv = ["--catalogue", few, "--models", member, "--output", tmp_path / "out"]
    run = prepare("predict", parse("predict", "", [str(word) for word in argv])).run
    settings = InferenceSettings.of(run)
    MemberHandler(settings.members[0], settings).load_model()
    checkpoints.tree(path, seed=5)
    with pytest.raises(UserError, match=r"member m: .* has changed since the run was planned"):
        MemberHandler(settings.members[0], settings).load_model()
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*m\.ckpt"):
        MemberHandler(settings.members[0], settings).load_model()
