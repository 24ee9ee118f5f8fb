"""Views against galaxy_datasets' own transforms, bit by bit, in one thread and in many at once."""

import concurrent.futures

import pytest
import torch
from PIL import Image

from beam_zoo.images.views import GLOBAL_GENERATOR, View, view_settings
from tests import oracle

STILL = {
    "minimal": {"base": "minimal"},
    "small and wide": {"base": "minimal", "output_size": [64, 100]},
    "always flipped": {"base": "minimal", "flip_prob": 1.0},
    "framed": {"base": "minimal", "random_affine": {"degrees": 0, "scale": [0.8, 0.8], "fill": 200}},
    "cut": {"base": "fast", "flip_prob": 0.0, "rotation_prob": 0.0, "random_resized_crop": None},
    "normalised": {"base": "minimal", "normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3]}},
}
MOVING = {
    "default": {"base": "default"},
    "turned": {"base": "fast", "rotation_prob": 1.0},
    "resized crop": {"base": "fast", "center_crop": False, "random_resized_crop": {"scale": [0.5, 1]}},
    "perspective": {
        "base": "minimal",
        "random_affine": None,
        "random_perspective": {"distortion_scale": 0.4, "p": 0.7},
    },
    "colours": {"base": "minimal", "color_jitter_prob": 0.5, "color_jitter": {"hue": 0.1, "contrast": 0.3}},
    "erased": {
        "base": "default",
        "erase_iterations": 4,
        "random_erasing": {"p": 0.5, "scale": [0.01, 0.1], "ratio": [0.5, 1.5]},
    },
    "posterized": {"base": "minimal", "posterize": {"bits": 3, "p": 0.5}},
    "under water": {"base": "minimal", "elastic_prob": 0.5, "elastic": {"alpha": 30, "sigma": 10}},
}


@pytest.fixture(scope="module")
def images(catalogue) -> list[Image.Image]:
    found = [oracle.image(path) for path in oracle.paths_of(catalogue)[:6]]
    return [*found, found[0].crop((10, 10, 70, 96)), found[1].crop((10, 10, 90, 51))]


@pytest.mark.parametrize(
    ("name", "greyscale"), [(name, grey) for name in STILL for grey in {False, name != "normalised"}]
)
def test_still(images, name, greyscale):
    changes = {"output_size": 64, **STILL[name]}
    view, theirs = View(view_settings(changes, greyscale)), oracle.view(**changes, greyscale=greyscale)
    assert not view.random
    for image in images * 2:  # the second time with what is known of its size
        assert torch.equal(view.to_float(torch.from_numpy(view.pixels(image))), theirs(image))


@pytest.mark.parametrize("greyscale", [False, True])
@pytest.mark.parametrize("name", MOVING)
def test_moving_in_many_threads(images, name, greyscale):
    changes = {"output_size": 64, **MOVING[name]}
    view, theirs = View(view_settings(changes, greyscale)), oracle.view(**changes, greyscale=greyscale)
    assert view.random
    work = [(image, 1000 * number + draw) for number, image in enumerate(images) for draw in range(6)]
    expected = []
    for image, key in work:
        torch.manual_seed(key)
        expected.append(theirs(image))
    assert len({pixels.sum().item() for pixels in expected}) > 12

    def disturb(_: int) -> None:
        with GLOBAL_GENERATOR:
            torch.rand(3)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        made = [pool.submit(view.pixels, *each) for each in work]
        list(pool.map(disturb, range(50)))
    for found, pixels in zip(made, expected, strict=True):
        assert torch.equal(view.to_float(torch.from_numpy(found.result())), pixels)


def test_a_failure_stops_nobody_else(images, monkeypatch):
    """Whatever fails while a view has its turn to draw: the next view has its own."""
    view = View(view_settings({"base": "default", "output_size": 64}, False))
    expected = view.pixels(images[0], 5)
    for name in ("manual_seed", "set_state", "get_state"):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "default_generator", _Failing(name))
            with pytest.raises(MemoryError):
                view.pixels(images[0], 5)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert (pool.submit(view.pixels, images[0], 5).result(timeout=60) == expected).all()


class _Failing:
    """torch's generator, with a method that fails."""

    def __init__(self, name: str) -> None:
        self._name, self._generator = name, torch.default_generator

    def __getattr__(self, name: str):
        if name == self._name:
            raise MemoryError(name)
        return getattr(self._generator, name)
