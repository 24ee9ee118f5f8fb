"""Checkpoints from the hub: the real client, against a small server on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from zoobot.pytorch.training import finetune
from zoobot.shared import schemas

from beam_zoo.errors import UserError
from beam_zoo.members import hub as hubs
from tests import checkpoints, oracle
from tests import hub as server

REPO, ENCODER = "someone/finetuned-rings", "someone/encoder-tiny"
TREE = {"zoobot_class": "FinetuneableZoobotTree"}
CONFIG = {"architecture": checkpoints.ARCHITECTURE, "num_classes": 0, "pretrained_cfg": {"num_classes": 0}}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that has nothing yet, used by this process, and an empty cache."""
    with server.serve() as running:
        server.use(monkeypatch, running.url, tmp_path / "cache")
        yield running


def rings(path: Path, *, seed: int = 0, encoder=None, name: str | None = None) -> Path:
    """A FinetuneableZoobotTree; `name` stands in it as zoobot saves it that was made with a hub name."""
    torch.manual_seed(seed)
    encoder = encoder or checkpoints.encoder(seed)
    schema = schemas.gz_rings_schema
    model = finetune.FinetuneableZoobotTree(schema=schema, encoder=encoder, timm_kwargs={})
    model.hparams["name"] = name
    return checkpoints.save(model, path)


def expected(path: Path, few: Path, encoder=None) -> np.ndarray:
    """What zoobot predicts from the checkpoint."""
    model = finetune.FinetuneableZoobotTree.load_from_checkpoint(
        path, map_location="cpu", weights_only=False, name=None, encoder=encoder or checkpoints.encoder(9)
    ).eval()
    view = oracle.view(output_size=64)
    with torch.inference_mode():
        images = torch.stack([view(oracle.image(image)) for image in oracle.paths_of(few)[:4]])
        return model.predict_step({"image": images}, 0).numpy()


def samples(result) -> np.ndarray:
    assert result.code == 0, result.err
    return result.table("samples").drop(columns=["id_str", "member", "pass"]).to_numpy()


OPTIONS = ("--passes", 1, "--limit", 4, "--snippet_size", 2)


@pytest.mark.parametrize("file", ["FinetuneableZoobotTree.ckpt", "model.ckpt"])
def test_a_hub_checkpoint_is_pinned_and_staged(predict, hub, few, tmp_path, file):
    path = rings(tmp_path / "rings.ckpt", name=f"hf_hub:{ENCODER}")
    first = hub.push(REPO, {file: path, "README.md": b"hello"})
    hub.push(ENCODER, {"config.json": CONFIG})
    member = checkpoints.member(tmp_path / "m.yaml", f"hf_hub:{REPO}", **TREE)
    result = predict(few, member, *OPTIONS)
    np.testing.assert_allclose(samples(result), expected(path, few), rtol=1e-4)
    (planned,) = json.loads((result.output / "manifest.json").read_text())["members"]
    assert planned["revision"] == first and planned["architecture"] == checkpoints.ARCHITECTURE
    staged = result.output / planned["path"]
    assert staged.parent == result.output / "_plan/members" and staged.read_bytes() == path.read_bytes()

    # The hub moves on; a run that goes on does not ask it, and predicts with what it has pinned.
    other = rings(tmp_path / "other.ckpt", seed=7, name=f"hf_hub:{ENCODER}")
    hub.push(REPO, {file: other})
    hub.requests.clear()
    (result.output / "samples" / sorted(os.listdir(result.output / "samples"))[0]).unlink()
    moved = result.output.rename(tmp_path / "moved")
    again = predict(few, member, *OPTIONS, output=moved)
    assert hub.requests == []
    np.testing.assert_allclose(samples(again), expected(path, few), rtol=1e-4)

    fresh = predict(few, member, *OPTIONS, "--overwrite", output=moved)
    np.testing.assert_allclose(samples(fresh), expected(other, few), rtol=1e-4)


def test_a_staged_checkpoint_that_was_tampered_with(predict, hub, few, tmp_path):
    path = rings(tmp_path / "rings.ckpt")
    hub.push(REPO, {"model.ckpt": path})
    member = checkpoints.member(
        tmp_path / "m.yaml", f"hf_hub:{REPO}", encoder=checkpoints.ARCHITECTURE, **TREE
    )
    result = predict(few, member, *OPTIONS)
    (staged,) = (result.output / "_plan/members").iterdir()
    staged.write_bytes(rings(tmp_path / "other.ckpt", seed=7).read_bytes())
    again = predict(few, member, *OPTIONS, output=result.output)
    assert again.code == 2
    assert "is not the checkpoint any more that the run was planned with" in again.err
    staged.unlink()
    gone = predict(few, member, *OPTIONS, output=result.output)
    assert gone.code == 2 and "cannot read the checkpoint" in gone.err


def test_a_revision_of_ones_own_choice(predict, hub, few, tmp_path):
    old = rings(tmp_path / "old.ckpt")
    commit = hub.push(REPO, {"model.ckpt": old})
    hub.push(REPO, {"model.ckpt": rings(tmp_path / "new.ckpt", seed=7)})
    settings = {"encoder": checkpoints.ARCHITECTURE, **TREE}
    member = checkpoints.member(tmp_path / "m.yaml", f"hf_hub:{REPO}@{commit}", **settings)
    np.testing.assert_allclose(samples(predict(few, member, *OPTIONS)), expected(old, few), rtol=1e-4)
    wrong = predict(few, checkpoints.member(tmp_path / "n.yaml", f"hf_hub:{REPO}@v9", **settings))
    assert wrong.code == 2 and f"hf_hub:{REPO}@v9: the hub's repository has no revision 'v9'" in wrong.err


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("architecture", [checkpoints.ARCHITECTURE, "test_vit3"])
def test_an_encoder(represent, hub, few, tmp_path, file, architecture):
    from safetensors.torch import save

    torch.manual_seed(0)
    # As timm's push_to_hf_hub describes a model, here one that takes 64 x 64 pixels and has a classifier.
    kwargs = {"img_size": 64} if architecture == "test_vit3" else {"global_pool": "max"}
    model = timm.create_model(architecture, num_classes=5, **kwargs).eval()
    pretrained = {
        "num_classes": 5,
        "input_size": [3, 64, 64],
        "global_pool": kwargs.get("global_pool", "map"),
    }
    pretrained["fixed_input_size"] = architecture == "test_vit3"
    if architecture == "test_vit3":
        pretrained["global_pool"] = model.global_pool
    if file.endswith("safetensors"):
        weights = save(model.state_dict())
    else:
        torch.save(model.state_dict(), tmp_path / file)
        weights = (tmp_path / file).read_bytes()
    commit = hub.push(
        ENCODER, {file: weights, "config.json": {"architecture": architecture, "pretrained_cfg": pretrained}}
    )
    model.reset_classifier(0)
    view = oracle.view(output_size=64)
    images = torch.stack([view(oracle.image(path)) for path in oracle.paths_of(few)[:4]])
    with torch.inference_mode():
        theirs = model(images).numpy()
    member = checkpoints.member(tmp_path / "m.yaml", f"hf_hub:{ENCODER}", zoobot_class="ZoobotEncoder")
    result = represent(few, member, "--limit", 4)
    assert result.code == 0, result.err
    ours = np.stack(result.table("representations/m")["feature"])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    resolved = [path for path in hub.requests if "/resolve/" in path]
    assert all(f"/resolve/{commit}/" in path for path in resolved), "one commit of the weights and the config"
    hub.requests.clear()
    assert represent(few, member, "--limit", 4, output=result.output).code == 0
    assert hub.requests == []


def test_what_the_hub_does_not_have(predict, hub, few, tmp_path):
    def error(checkpoint: str, **settings) -> str:
        member = checkpoints.member(tmp_path / "m.yaml", checkpoint, **{**TREE, **settings})
        result = predict(few, member)
        assert result.code == 2 and len(result.err.splitlines()) == 1 and not result.output.exists(), (
            result.err
        )
        return result.err

    hub.push("someone/empty", {"README.md": b"hello"})
    hub.push("someone/config", {"config.json": {"architecture": 3}})
    hub.push(REPO, {"model.ckpt": rings(tmp_path / "r.ckpt", name="hf_hub:someone/gone")})
    assert "hf_hub:someone/nothing: the hub has no such repository" in error("hf_hub:someone/nothing")
    assert "has no FinetuneableZoobotTree.ckpt or model.ckpt on the hub (it has README.md)" in error(
        "hf_hub:someone/empty"
    )
    assert "hf_hub:someone/gone: the hub has no such repository" in error(f"hf_hub:{REPO}")
    assert "its config.json names no timm architecture" in error(
        f"hf_hub:{REPO}", encoder="hf_hub:someone/config"
    )


def test_a_dead_hub(monkeypatch, tmp_path):
    """One that takes connections and never answers, and one that is not there."""
    monkeypatch.setattr(hubs, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        server.use(monkeypatch, f"http://127.0.0.1:{deaf.getsockname()[1]}", tmp_path)
        with pytest.raises(UserError, match=f"cannot fetch hf_hub:{REPO} from the hub: .*check the network"):
            hubs.fetch(f"hf_hub:{REPO}", ("model.ckpt",))
    with pytest.raises(UserError, match=f"cannot fetch hf_hub:{REPO} from the hub: .*check the network"):
        hubs.fetch(f"hf_hub:{REPO}", ("model.ckpt",))


def test_a_hub_that_stalls(monkeypatch, hub, tmp_path):
    """It describes the repository, and never sends the file."""
    monkeypatch.setattr(hubs, "TIMEOUT", 0.5)
    hub.push(REPO, {"model.ckpt": b"one"})
    hub.stalls = True
    with pytest.raises(UserError, match=f"cannot fetch hf_hub:{REPO} from the hub: .*check the network"):
        hubs.fetch(f"hf_hub:{REPO}", ("model.ckpt",))
    assert len(hub.requests) == 2


def test_a_local_checkpoint_that_became_a_hub_name(predict, hub, few, tmp_path):
    """The same bytes: the run goes on, and what it pins is there for the workers."""
    path = rings(tmp_path / "rings.ckpt")
    hub.push(REPO, {"model.ckpt": path})
    settings = {"encoder": checkpoints.ARCHITECTURE, **TREE}
    result = predict(few, checkpoints.member(tmp_path / "m.yaml", path, **settings), *OPTIONS)
    assert result.code == 0, result.err
    next((result.output / "samples").iterdir()).unlink()
    member = checkpoints.member(tmp_path / "m.yaml", f"hf_hub:{REPO}", **settings)
    again = predict(few, member, *OPTIONS, output=result.output)
    np.testing.assert_allclose(samples(again), expected(path, few), rtol=1e-4)


def test_a_checkpoint_in_remote_storage_is_staged(predict, few, tmp_path):
    """Read once through Beam's file systems, when the run is planned."""
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.localfilesystem import LocalFileSystem

    opened = []

    class Bucket(LocalFileSystem):
        @classmethod
        def scheme(cls):
            return "testbucket"

        def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
            opened.append(path)
            return super().open(
                str(tmp_path / path.removeprefix("testbucket://")), mime_type, compression_type
            )

    path = rings(tmp_path / "rings.ckpt")
    settings = {"encoder": checkpoints.ARCHITECTURE, **TREE}
    member = checkpoints.member(tmp_path / "m.yaml", "testbucket://rings.ckpt", **settings)
    result = predict(few, member, *OPTIONS)
    np.testing.assert_allclose(samples(result), expected(path, few), rtol=1e-4)
    opened.clear()
    path.unlink()
    assert predict(few, member, *OPTIONS, output=result.output).code == 0
    assert opened == []


def test_offline(monkeypatch, hub, tmp_path):
    name, wanted = f"hf_hub:{REPO}", ("FinetuneableZoobotTree.ckpt", "model.ckpt")
    first = hub.push(REPO, {"model.ckpt": b"one"})
    path, commit = hubs.fetch(name, wanted)
    assert commit == first and Path(path).read_bytes() == b"one"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert hubs.fetch(name, wanted) == (path, first)
    assert hubs.fetch(f"{name}@{first}", wanted) == (path, first)
    with pytest.raises(
        UserError, match=r"HF_HUB_OFFLINE is set, and the hub client's cache has no config\.json"
    ):
        hubs.fetch(name, ("config.json",))
    assert hub.requests == []

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    second = hub.push(REPO, {"model.ckpt": b"two"})
    hubs.fetch(name, wanted)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=f"the cache holds 2 revisions of {name}: choose one, {name}@[0-9a-f]+"
    ):
        hubs.fetch(name, wanted)
    assert hubs.fetch(f"{name}@{second}", wanted)[1] == second

    # zoobot itself downloads `main`, and the cache then knows which revision that is.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.hf_hub_download(REPO, "model.ckpt")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hubs.fetch(name, wanted)[1] == second


@pytest.mark.slow
def test_the_command_itself(hub, few, tmp_path):
    """Another process, whose hub client reads HF_ENDPOINT and HF_HOME; then with no server at all."""
    path = rings(tmp_path / "rings.ckpt", name=f"hf_hub:{ENCODER}")
    hub.push(REPO, {"FinetuneableZoobotTree.ckpt": path})
    hub.push(ENCODER, {"config.json": CONFIG})
    member = checkpoints.member(tmp_path / "m.yaml", f"hf_hub:{REPO}", **TREE)
    argv = [sys.executable, "-m", "pipelines.predict", "--catalogue", few, "--models", member]
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}

    def run(output: str, **changes: str) -> subprocess.CompletedProcess:
        words = [str(word) for word in [*argv, "--output", tmp_path / output, *OPTIONS, "--dry_run"]]
        root = Path(__file__).parents[2]
        return subprocess.run(
            words, env={**env, **changes}, cwd=root, capture_output=True, text=True, timeout=300
        )

    done = run("out")
    assert done.returncode == 0, done.stderr
    assert "member m: 1 encoder and 1 head passes" in done.stderr
    assert any(f"/{REPO}/resolve/" in request for request in hub.requests)
    dead = run("out", HF_ENDPOINT="http://127.0.0.1:9")
    assert dead.returncode == 2
    (line,) = dead.stderr.splitlines()
    assert line.startswith("error: ") and f"cannot fetch hf_hub:{REPO} from the hub" in line
    assert not (tmp_path / "out").exists()
