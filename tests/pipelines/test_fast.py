"""`--compile`, `--fast_images`, `--fast_views`: numbers within the tolerance of each, and resume."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from beam_zoo.images import fast_views
from beam_zoo.images.fast_views import FastView
from beam_zoo.images.gpu.card_decoder import CardDecoder, NoCardDecoder
from beam_zoo.inference import image_loader
from beam_zoo.runtime import device
from beam_zoo.samples.records import Batch
from pipelines import checks
from tests import checkpoints, oracle


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """A member with a deterministic view, one with random views, and one that cuts pixels out."""
    folder = tmp_path_factory.mktemp("members")
    views = {
        "still": {"base": "minimal", "output_size": 64},
        "moving": {"base": "default", "output_size": 64},
        "cutting": {"base": "fast", "output_size": 64},
    }
    found = {}
    for seed, (name, view) in enumerate(views.items()):
        path = checkpoints.tree(folder / f"{name}.ckpt", seed=seed)
        found[name] = checkpoints.member(folder / f"{name}.yaml", path, view=view)
    return found


def fractions(result) -> np.ndarray:
    return result.table("advanced").filter(like="_fraction").to_numpy()


def test_fast_views_are_one_algorithm(predict, few, members, monkeypatch):
    """Begun as on a CPU, continued as on a GPU (whose images are decoded ahead): the numbers of one run."""
    given = [few, members["moving"], "--passes", 2, "--fast_views", "--snippet_size", 9]
    whole = predict(*given)
    some = predict(*given, "--snippets", "0:1")
    monkeypatch.setitem(image_loader.AHEAD, "cpu", True)
    both = predict(*given, output=some.output)
    assert_same_tables(both, whole)


def test_a_run_whose_views_depended_on_the_device_does_not_go_on(predict, few, members, capfd):
    """As earlier versions planned it: it can be read, and not be continued by another algorithm."""
    from pipelines import audit, finish

    given = [few, members["still"], "--passes", 1]
    done = predict(*given)
    path = done.output / "_plan" / "plan.json"
    old = json.loads(path.read_text())
    path.write_text(json.dumps({**old, "fast_views": True}))
    again = predict(*given, "--fast_views", output=done.output)
    assert again.code == 2 and "fast_views (True there, batched now)" in again.err.splitlines()[-1]
    path.write_text(json.dumps(old))
    assert finish.main([str(done.output)]) == 0 and audit.main([str(done.output)]) == 0


def assert_same_tables(one, other):
    assert one.code == 0, one.err
    for name in ("samples", "friendly", "failures"):
        pd.testing.assert_frame_equal(one.table(name), other.table(name))


def test_fast_views(predict, few, members):
    """Every sample within the rounding of a grey level, and the same however the work is cut."""
    both = [members["still"], members["moving"]]
    exact = predict(few, both, "--passes", 3)
    fast = predict(few, both, "--passes", 3, "--fast_views")
    assert fast.code == 0, fast.err
    assert "fast views" in fast.err
    difference = np.abs(fractions(exact) - fractions(fast))
    assert 0 < difference.max() < 3e-3 and np.median(difference) < 2e-4
    cut = predict(few, both, "--passes", 3, "--fast_views", "--batch_size", 5, "--snippet_size", 9)
    oracle.assert_same_samples(cut.table("samples"), fast.table("samples"))


@pytest.mark.parametrize("options", [[], ["--fast_views"]])
def test_ahead_of_the_forward_pass(predict, few, members, monkeypatch, options, tmp_path):
    """As for a GPU: decoded by other processes, views made in batches. The same numbers, and failures."""
    rows = pd.read_csv(few)
    rows["file_loc"] = [str(few.parent / location) for location in rows["file_loc"]]
    # One is too large to wait for the views of its batch.
    Image.open(rows["file_loc"][9]).resize((1200, 1000)).save(tmp_path / "large.jpg")
    rows.loc[[3, 9, 20], "file_loc"] = ["missing.jpg", "large.jpg", str(few)]
    rows.to_csv(tmp_path / "some.csv", index=False)
    both = [members["still"], members["moving"]]
    given = ["--passes", 3, "--batch_size", 5, "--max_failure_fraction", 0.5, *options]
    behind = predict(tmp_path / "some.csv", both, *given)
    monkeypatch.setitem(image_loader.AHEAD, "cpu", True)
    ahead = predict(tmp_path / "some.csv", both, *given)
    assert "no processes can be started" not in ahead.err
    assert_same_tables(ahead, behind)
    assert list(ahead.table("failures")["id_str"]) == ["gal 0003", "gal 0020"]


@pytest.fixture
def on_card(few, members, predict, monkeypatch, tmp_path):
    """Predicts as with a GPU that decodes JPEGs, and as without; counts the images that it decoded."""
    rows = pd.read_csv(few)
    rows["file_loc"] = [str(few.parent / location) for location in rows["file_loc"]]
    images = [Image.open(location) for location in rows["file_loc"]]
    images[5].save(tmp_path / "other.png")
    images[9].resize((1200, 1000)).save(tmp_path / "large.jpg")
    (tmp_path / "cut.jpg").write_bytes(Path(rows["file_loc"][2]).read_bytes()[:-300])
    changed = ["cut.jpg", "missing.jpg", "other.png", "large.jpg", str(few)]
    rows.loc[[2, 3, 5, 9, 20], "file_loc"] = changed
    rows.to_csv(tmp_path / "some.csv", index=False)
    # One of them is made of whole images, so that all are decoded whole.
    both = [members["still"], members["cutting"]]
    given = ["--passes", 2, "--batch_size", 5, "--max_failure_fraction", 0.5, "--fast_images", "--fast_views"]
    card = "--gpu_decoder"
    took = []
    decode = CardDecoder.decode

    def counted(card, *given):
        found = decode(card, *given)
        # Not the blank one of 64 px that it is tried with.
        took.extend(image for image in found if image is not None and len(image) != 64)
        return found

    def both_ways():
        without = predict(tmp_path / "some.csv", both, *given)
        assert not took
        done = predict(tmp_path / "some.csv", both, *given, card)
        if done.code:
            return done, len(took), 0
        assert_same_tables(done, without)
        assert list(done.table("failures")["id_str"]) == ["gal 0002", "gal 0003", "gal 0020"]
        return done, len(took), len(rows) - len(changed)

    monkeypatch.setitem(image_loader.AHEAD, "cpu", True)
    monkeypatch.setattr(CardDecoder, "decode", counted)
    return both_ways


def test_decoded_on_the_device(on_card):
    """All but a PNG, a large image and what is no image; the same numbers, and failures."""
    done, took, usual = on_card()
    assert took == usual
    assert "this GPU" not in done.err and "GPU's decoder" not in done.err


def test_no_decoder_on_the_device(on_card, monkeypatch):
    def refuse(*_):
        raise NoCardDecoder("no engines")

    monkeypatch.setattr(CardDecoder, "__init__", refuse)
    done, _, _ = on_card()
    assert done.code == 2
    assert (
        done.err.splitlines()[-1] == "error: this GPU decodes no JPEGs (no engines): leave --gpu_decoder out"
    )


def test_the_decoder_on_the_device_fails(on_card, monkeypatch):
    begin = CardDecoder.__init__

    class Failing:
        def decode(self, *_, **__):
            raise RuntimeError("out of luck")

        def __exit__(self, *_):
            pass

    def broken(card, *given):
        begin(card, *given)
        for _ in range(card._free.qsize()):
            card._free.put((Failing(), card._free.get()[1]))

    monkeypatch.setattr(CardDecoder, "__init__", broken)
    done, took, _ = on_card()
    assert (
        took == 0 and "the GPU's decoder failed (out of luck): processor cores decode some images" in done.err
    )


def test_no_batch_is_pickled(predict, few, members, monkeypatch):
    """Beam asks for the size of many elements after every step: encoding a GPU's pixels would wait for it."""

    def refuse(batch, protocol):
        raise AssertionError("a batch is pickled")

    monkeypatch.setattr(Batch, "__reduce_ex__", refuse)
    done = predict(few, [members["still"]], "--batch_size", 5)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param((device, "WAITING_BYTES", 0), id="nothing waits on the device"),
        pytest.param((fast_views, "GRID_PIXELS", 1), id="one image at a time"),
    ],
)
def test_little_memory(predict, few, members, monkeypatch, changed):
    """What is done to bound the memory of a GPU changes no number."""
    monkeypatch.setitem(image_loader.AHEAD, "cpu", True)
    monkeypatch.setitem(fast_views.GRID_IMAGES, "cpu", 64)
    both = [members["still"], members["moving"]]
    given = ["--passes", 2, "--batch_size", 5, "--fast_views"]
    much = predict(few, both, *given)
    monkeypatch.setattr(*changed)
    little = predict(few, both, *given)
    assert little.code == 0, little.err
    pd.testing.assert_frame_equal(little.table("samples"), much.table("samples"))


def test_a_view_that_fails_on_the_device(predict, few, members, monkeypatch):
    """Of one galaxy of a batch: the others are predicted, with the same numbers."""
    monkeypatch.setitem(image_loader.AHEAD, "cpu", True)
    given = ["--passes", 2, "--batch_size", 5, "--fast_views", "--max_failure_fraction", 0.5]
    whole = predict(few, members["moving"], *given)
    bad = np.asarray(Image.open(few.parent / pd.read_csv(few)["file_loc"][7]).convert("RGB"))
    geometry = FastView._geometry

    def fails(view, x, draws):
        if any(np.array_equal(image.permute(1, 2, 0), bad) for image in x):
            raise ValueError("no such view")
        return geometry(view, x, draws)

    monkeypatch.setattr(FastView, "_geometry", fails)
    some = predict(few, members["moving"], *given)
    assert some.code == 0, some.err
    failure = some.table("failures").iloc[0]
    assert (failure["id_str"], failure["stage"], failure["error"]) == ("gal 0007", "view", "no such view")
    expected = whole.table("samples")
    expected = expected[expected["id_str"] != "gal 0007"].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.table("samples"), expected)


def test_fast_images(predict, few, members, tmp_path):
    """Only JPEGs of more pixels than the views need change; PNGs, and views that crop pixels, do not."""
    rows = pd.read_csv(few)
    for number, location in enumerate(rows["file_loc"]):
        large = Image.open(few.parent / location).resize((400, 320), Image.Resampling.BICUBIC)
        large.save(tmp_path / f"{number}.{'png' if number % 2 else 'jpg'}", quality=95)
    rows["file_loc"] = [f"{number}.{'png' if number % 2 else 'jpg'}" for number in range(len(rows))]
    rows.to_csv(tmp_path / "large.csv", index=False)
    exact = predict(tmp_path / "large.csv", members["still"], "--passes", 1)
    fast = predict(tmp_path / "large.csv", members["still"], "--passes", 1, "--fast_images")
    assert fast.code == 0, fast.err
    difference = np.abs(fractions(exact) - fractions(fast)).max(1)
    jpeg = rows["file_loc"].str.endswith(".jpg").to_numpy()
    assert (difference[jpeg] > 0).all() and difference.max() < 0.1 and (difference[~jpeg] == 0).all()
    # One view that needs every pixel keeps them all for everybody.
    together = predict(
        tmp_path / "large.csv", [members["still"], members["cutting"]], "--passes", 1, "--fast_images"
    )
    samples = together.table("samples")
    oracle.assert_same_samples(samples[samples["member"] == "still"], exact.table("samples"))


def test_fast_images_changes_nothing_in_small_ones(predict, few, members):
    exact = predict(few, members["still"], "--passes", 1)
    fast = predict(few, members["still"], "--passes", 1, "--fast_images")
    assert (fractions(exact) == fractions(fast)).all()


@pytest.mark.slow
def test_compiled(predict, few, members):
    """Within float noise of the same encoder not compiled; batches that are not full, too."""
    both = [members["still"], members["moving"]]
    exact = predict(few, both, "--passes", 2, "--batch_size", 10)
    compiled = predict(few, both, "--passes", 2, "--batch_size", 10, "--compile")
    assert compiled.code == 0, compiled.err
    oracle.assert_same_samples(exact.table("samples"), compiled.table("samples"), 1e-3)


@pytest.mark.slow
def test_compiled_representations(represent, few, members):
    exact = represent(few, members["still"])
    compiled = represent(few, members["still"], "--compile")
    assert compiled.code == 0, compiled.err
    a, b = (np.stack(r.table("representations/still")["feature"].to_list()) for r in (exact, compiled))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_nothing_to_compile_with(predict, few, members, monkeypatch, tmp_path):
    import torch._dynamo
    import torch._inductor.config
    from torch._inductor import cpp_builder

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    cpp_builder.get_cpp_compiler.cache_clear() if hasattr(
        cpp_builder.get_cpp_compiler, "cache_clear"
    ) else None
    torch._dynamo.reset()
    result = predict(few, members["still"], "--passes", 1, "--compile")
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert line.startswith("error: member still: torch cannot compile its encoder here (")
    assert line.endswith("install a C++ compiler, or leave --compile out")


@pytest.mark.parametrize(
    ("member", "options", "reason"),
    [
        ("still", ["--fast_views"], "this machine has no GPU: leave --gpu_decoder out"),
        ("still", [], "--gpu_decoder needs --fast_views: give both, or leave it out"),
        ("moving", ["--fast_views"], "member moving has random views: leave --gpu_decoder out"),
    ],
)
def test_the_decoder_on_the_device_is_refused(predict, few, members, monkeypatch, member, options, reason):
    monkeypatch.setitem(checks.AHEAD, "cpu", "no GPU" not in reason)
    result = predict(few, members[member], "--gpu_decoder", *options)
    assert result.code == 2 and result.err.splitlines()[-1] == f"error: {reason}"


def test_an_output_holds_pixels_of_one_decoder(on_card, predict, few, members):
    done, took, _ = on_card()
    given = ["--passes", 2, "--batch_size", 5, "--fast_images", "--fast_views"]
    both = [members["still"], members["cutting"]]
    again = predict(done.output.parent / "some.csv", both, *given, output=done.output)
    assert took and again.code == 2
    assert "gpu_decoder (True there, False now)" in again.err.splitlines()[-1]


@pytest.mark.parametrize("option", ["compile", "fast_images", "fast_views"])
def test_an_output_holds_numbers_of_one_kind(predict, few, members, option):
    done = predict(few, members["still"], "--passes", 1)
    again = predict(few, members["still"], "--passes", 1, f"--{option}", output=done.output)
    assert again.code == 2
    now = "batched" if option == "fast_views" else "True"
    assert f"{option} (False there, {now} now)" in again.err.splitlines()[-1]


def test_a_view_that_is_not_made_in_batches(predict, few, tmp_path):
    path = checkpoints.tree(tmp_path / "m.ckpt")
    view = {"base": "fast", "output_size": 64, "rotation_prob": 1.0}
    member = checkpoints.member(tmp_path / "turning.yaml", path, view=view)
    result = predict(few, member, "--fast_views", "--dry_run")
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert line == (
        "error: member turning: --fast_views cannot make a view with RandomRotation: leave --fast_views out"
    )
