"""Batched views against galaxy_datasets' own transforms, image by image."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from beam_zoo.errors import UserError
from beam_zoo.images.decode import decode
from beam_zoo.images.fast_views import FastView
from beam_zoo.images.views import View, least_side, view_settings
from beam_zoo.runtime import device
from benchmarks import workload
from tests import checkpoints, galaxies, oracle

VIEWS = {
    "minimal": "minimal",
    "default": "default",
    "crop": "fast",
    "small": {"base": "minimal", "output_size": 64},
    "wide": {"base": "default", "output_size": [96, 130]},
    "shrunk": {
        "base": "default",
        "random_affine": {
            "degrees": 180,
            "translate": [0.5, 0.3],
            "scale": [0.3, 1],
            "shear": [-30, 30, -40, 40],
        },
    },
    "larger crop": {"base": "fast", "output_size": 300},
    "flipped": {"base": "fast", "flip_prob": 1.0},
    "normalised": {"base": "minimal", "normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3]}},
}


@pytest.fixture(scope="module")
def images(catalogue) -> list[Image.Image]:
    """Galaxies of their own sizes, and some that are cut to odd ones."""
    found = [oracle.image(path) for path in oracle.paths_of(catalogue)[:8]]
    sizes = [(1, 1), (2, 3), (224, 301), (97, 60)]
    return found + [image.crop((20, 20, 20 + w, 20 + h)) for image, (w, h) in zip(found, sizes, strict=False)]


def batch(view: FastView, images, draws, views: int = 1) -> torch.Tensor:
    out = torch.empty((len(images), views, *view.shape), dtype=torch.uint8)
    view.batch([torch.from_numpy(image) for image in images], draws, out)
    return out


@pytest.mark.parametrize(
    ("name", "greyscale"),
    [(name, grey) for name in VIEWS for grey in (False, True) if not (grey and name == "normalised")],
)
def test_within_a_grey_level(images, name, greyscale):
    settings = view_settings(VIEWS[name], greyscale)
    changes = VIEWS[name] if isinstance(VIEWS[name], dict) else {"base": VIEWS[name]}
    theirs = oracle.view(**changes, greyscale=greyscale)
    view = FastView(settings)
    keys = [None, None] if not view.random else [1 << 40, 77]
    draws = [[view.draw(image.height, image.width, key) for key in keys] for image in images]
    made = batch(view, [view.raw(image) for image in images], draws, 2)
    assert made.shape == (len(images), 2, *view.shape) and made.dtype == torch.uint8
    scale = 255 * torch.tensor(changes["normalize"]["std"])[:, None, None] if name == "normalised" else 255
    for image, two in zip(images, made, strict=True):
        for key, one in zip(keys, two, strict=True):
            torch.manual_seed(key or 0)
            difference = scale * (view.to_float(one[None])[0] - theirs(image)).abs()
            assert difference.max() <= 1.001
            if min(image.size) > 50:
                assert (difference > 0.5).float().mean() < 0.06


def test_one_draw_is_one_view(images):
    """Alone, in another order and beside others: the same pixels."""
    view = FastView(view_settings("default", False))
    raw = [view.raw(image) for image in images]
    draws = [[view.draw(image.height, image.width, 7 + n)] for n, image in enumerate(images)]
    together = batch(view, raw, draws)
    backwards = batch(view, raw[::-1], draws[::-1]).flip(0)
    alone = torch.cat([batch(view, [image], [draw]) for image, draw in zip(raw, draws, strict=True)])
    assert torch.equal(together, backwards) and torch.equal(together, alone)


@pytest.mark.slow
def test_vote_fractions_of_a_large_encoder(tmp_path):
    """The tolerance of docs/performance.md, with convnext_nano and real galaxies, if there are any."""
    view = {"base": "minimal", "output_size": 224}
    settings = view_settings(view, False)
    fast, exact = FastView(settings), oracle.view(**view)
    images = [oracle.image(path) for path in oracle.paths_of(galaxies.best(tmp_path, 48))]
    model = oracle.load_tree(checkpoints.tree(tmp_path / "m.ckpt", architecture_name="convnext_nano"))
    with torch.inference_mode():
        draws = [[fast.draw(image.height, image.width)] for image in images]
        made = batch(fast, [fast.raw(image) for image in images], draws)[:, 0]
        found = [
            workload.fractions(model, model.encoder(pixels))
            for pixels in (torch.stack([exact(image) for image in images]), fast.to_float(made))
        ]
    moved = np.abs(found[0] - found[1])
    assert 0 < moved.max() < 2e-2 and np.median(moved) < 2e-4 and np.quantile(moved, 0.99) < 4e-3


def test_no_image_at_all():
    view = FastView(view_settings("minimal", False))
    assert batch(view, [], [], 2).shape == (0, 2, 3, 224, 224)


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"base": "fast", "rotation_prob": 1.0}, "RandomRotation"),
        (
            {"base": "fast", "center_crop": False, "random_resized_crop": {"scale": [0.5, 1]}},
            "RandomResizedCrop",
        ),
        ({"base": "minimal", "posterize": {"bits": 3}}, "RandomPosterize"),
        ({"base": "minimal", "color_jitter_prob": 0.5, "color_jitter": {"hue": 0.1}}, "RandomApply"),
        ({"base": "minimal", "interpolation_method": "nearest"}, "interpolation_method nearest"),
        ({"base": "minimal", "random_affine": {"degrees": 0, "scale": [0.8, 0.8], "fill": 200}}, "fill 200"),
    ],
)
def test_steps_that_are_not_made_in_batches(changes, step):
    with pytest.raises(
        UserError, match=f"--fast_views cannot make a view with {step}: leave --fast_views out"
    ):
        FastView(view_settings(changes, False))


def test_out_of_memory_halves_the_images(images, monkeypatch):
    view = FastView(view_settings("fast", False))
    view._batches = device.AdaptiveBatches(4, "--fast_views", "images", "one image")
    real, sizes = FastView._geometry, []

    def geometry(self, x, draws):
        sizes.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, x, draws)

    raw = [view.raw(image.resize((240, 240))) for image in images]
    draws = [[view.draw(240, 240)] for _ in raw]
    whole = batch(view, raw, draws)
    monkeypatch.setattr(FastView, "_geometry", geometry)
    assert torch.equal(batch(view, raw, draws), whole)
    assert sizes[:3] == [4, 2, 1] and set(sizes[3:]) == {1}


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("minimal", 269),
        ("default", 314),
        ("fast", None),
        ({"base": "minimal", "output_size": [64, 100]}, 120),
    ],
)
def test_least_side(view, expected):
    assert least_side(view_settings(view, False)) == expected


def test_draft_keeps_the_least_side():
    """JPEGs come in halves, quarters and eighths; a PNG has all of its pixels."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 255, (800, 1000, 3), np.uint8))
    files = {}
    for kind in ("JPEG", "PNG"):
        file = io.BytesIO()
        image.save(file, kind)
        files[kind] = file.getvalue()
    sizes = {side: decode(files["JPEG"], side).size for side in (None, 801, 401, 400, 200, 100, 1)}
    assert sizes == {
        None: (1000, 800),
        801: (1000, 800),
        401: (1000, 800),
        400: (500, 400),
        200: (250, 200),
        100: (125, 100),
        1: (125, 100),
    }
    assert decode(files["PNG"], 100).size == (1000, 800)
    assert View(view_settings({"base": "minimal", "output_size": 64}, False)).pixels(
        decode(files["JPEG"], 77)
    ).shape == (3, 64, 64)
