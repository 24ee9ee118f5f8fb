"""Errors while predicting: the device runs out of memory, outputs are not numbers, the disk is full."""

import errno
import json
import os

import numpy as np
import pytest
import torch

from beam_zoo.inference import handler as inference
from beam_zoo.storage import files
from tests import oracle


class SmallDevice:
    """An encoder on a device that holds only so many images at a time."""

    def __init__(self, monkeypatch, images: int) -> None:
        self.sizes: list[int] = []
        real = inference.MemberModel._encode

        def encode(model, pixels):
            self.sizes.append(len(pixels))
            if len(pixels) > images:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return real(model, pixels)

        monkeypatch.setattr(inference.MemberModel, "_encode", encode)


def test_out_of_memory_halves_the_batch(predict, few, trees, monkeypatch):
    whole = predict(few, trees, "--passes", 2)
    monkeypatch.setitem(inference.IMAGES_AT_ONCE, "cpu", 100)
    device = SmallDevice(monkeypatch, 5)
    result = predict(few, trees, "--passes", 2, "--batch_size", 16)
    assert result.code == 0, result.err
    oracle.assert_same_samples(result.table("samples"), whole.table("samples"))
    # 16 and 8 do not fit; then 4 at a time, for this batch and all later ones.
    assert device.sizes[:3] == [16, 8, 4] and max(device.sizes[3 * 2 + 8 :]) <= 4
    said = [line for line in result.err.splitlines() if "out of memory" in line]
    assert "going on with 4 images at a time" in said[1]


def test_out_of_memory_in_the_head(predict, few, trees, monkeypatch):
    """Many passes take more memory than the encoder: galaxies are halved there."""
    whole = predict(few, trees, "--passes", 3)
    real = inference.MemberModel._after_dropout
    sizes = []

    def head(model, x):
        sizes.append(len(x))
        if len(x) > 3:
            raise RuntimeError("CUDA error: out of memory")
        return real(model, x)

    monkeypatch.setattr(inference.MemberModel, "_after_dropout", head)
    result = predict(few, trees, "--passes", 3, "--batch_size", 16)
    assert result.code == 0, result.err
    assert sizes[:3] == [16, 8, 4] and "going on with 2 galaxies at a time" in result.err
    oracle.assert_same_samples(result.table("samples"), whole.table("samples"))


def test_a_member_that_does_not_fit_says_so(predict, few, trees, monkeypatch):
    def to(model, device):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    result = predict(few, trees, "--passes", 1)
    assert result.code == 2
    last = result.err.splitlines()[-1]
    assert last in [f"error: member {n} does not fit into the memory of the device" for n in "ab"]


def test_one_image_that_does_not_fit_says_so(predict, few, trees, monkeypatch):
    SmallDevice(monkeypatch, 0)
    result = predict(few, trees, "--passes", 1)
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert line == "error: member a: one image does not fit into the memory of the device"
    assert "Traceback" not in result.err


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_numbers_become_failures(predict, few, trees, monkeypatch, value):
    """Two galaxies of one member: one failures row each, no samples of any member, in no table."""
    real = inference.MemberModel.samples
    clean = predict(few, trees, "--passes", 2, "--batch_size", 10)

    def samples(model, features, keys):
        out = real(model, features, keys).clone()
        if model.member.name == "b" and len(out) == 10:
            out[3, 1, 7] = value
        return out

    monkeypatch.setattr(inference.MemberModel, "samples", samples)
    result = predict(few, trees, "--passes", 2, "--batch_size", 10, "--max_failure_fraction", 0.5)
    assert result.code == 0, result.err
    failures = result.table("failures")
    assert list(failures["id_str"]) == ["gal 0003", "gal 0013"]
    assert set(failures["stage"]) == {"inference"} and not failures["may_pass"].any()
    assert failures["error"][0] == "member b gave NaN or infinite outputs"
    kept = clean.table("samples")
    kept = kept[~kept["id_str"].isin(failures["id_str"])]
    oracle.assert_same_samples(result.table("samples"), kept)
    assert not result.table("friendly")["id_str"].isin(failures["id_str"]).any()
    counts = json.loads((result.output / "manifest.json").read_text())
    assert (counts["rows_predicted"], counts["rows_failed"]) == (21, 2)


@pytest.mark.parametrize("stored", [0, 2, 5, 7])
def test_a_full_disk_keeps_what_is_stored(predict, few, trees, monkeypatch, stored):
    """Exit code 4 and one line, wherever the disk fills; the same command then goes on."""
    clean = predict(few, trees, "--passes", 1, "--snippet_size", 4)
    real = os.fsync
    left = [stored]

    def fsync(handle):
        is_part = "part-" in os.readlink(f"/proc/self/fd/{handle}")
        if is_part and left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= is_part
        real(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    full = predict(few, trees, "--passes", 1, "--snippet_size", 4)
    assert full.code == 4
    lines = [line for line in full.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "no space left" in lines[0] and "Traceback" not in full.err
    assert not (full.output / "manifest.json").exists()
    monkeypatch.setattr(files.os, "fsync", real)
    again = predict(few, trees, "--passes", 1, "--snippet_size", 4, output=full.output)
    assert again.code == 0
    # Snippets are taken in a random order, and the last of them has 3 galaxies instead of 4.
    reused = json.loads((again.output / "manifest.json").read_text())["rows_reused"]
    assert reused in ({4 * stored, 4 * stored - 1} if 0 < stored < 6 else {min(23, 4 * stored)})
    for name in ("friendly", "advanced"):
        assert again.table(name).equals(clean.table(name))


def test_fp32_is_not_tf32(few, trees, predict):
    predict(few, trees, "--passes", 1)
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(predict, few, trees, precision):
    """The encoder in half precision, the head in float32: near, and not equal."""
    full = predict(few, trees, "--passes", 1)
    half = predict(few, trees, "--passes", 1, "--precision", precision)
    assert half.code == 0, half.err
    a, b = (r.table("advanced").filter(like="_fraction").to_numpy() for r in (full, half))
    assert 0 < np.abs(a - b).max() < 0.05
