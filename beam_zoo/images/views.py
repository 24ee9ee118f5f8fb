"""Views: the image transforms of galaxy_datasets, with the same names.

A view ends in a conversion to float32 and an optional normalisation. The device does both (`View.to_float`):
until then images are uint8, a quarter of the bytes.
"""

import contextlib
import json
import math
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from beam_zoo.errors import UserError, did_you_mean, one_line

NAMES = ("default", "minimal", "fast")
LARGEST = 4096
SIZES_KEPT = 1000
"""Image sizes for which the parameters of a deterministic view are cached."""

GLOBAL_GENERATOR = threading.Lock()
"""Held while code draws from torch's global generator, which all threads of a process share.

Constructors of models draw from it, and galaxy_datasets' transforms, even those of deterministic views (a
rotation between 0 and 0 degrees).
"""
Drawn = tuple[Any, dict[str, Any]]
"""A step of torchvision, and the parameters that were drawn for it."""


def view_settings(view: str | dict[str, Any], greyscale: bool) -> dict[str, Any]:
    """Every setting of a view.

    Args:
        view: a name of galaxy_datasets, or a mapping with `base` (a name) and the settings to change.
        greyscale: whether the member takes one channel instead of three.

    Returns:
        The complete settings, as JSON values.

    Raises:
        UserError: an unknown name or setting, or settings that cannot make a view.
    """
    from galaxy_datasets import transforms
    from omegaconf import OmegaConf

    changes = dict(view) if isinstance(view, dict) else {"base": view}
    base = changes.pop("base", None)
    if base not in NAMES:
        raise UserError(f"view: no base {base!r} in galaxy_datasets{did_you_mean(str(base), NAMES)}")
    settings = OmegaConf.to_container(getattr(transforms, f"{base}_view_config")())
    assert isinstance(settings, dict)
    known = {*settings, *transforms.default_view_config(), "color_jitter", "elastic"}
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"view: no setting {name!r} in galaxy_datasets{did_you_mean(name, known)}")
        settings[name] = value
    if "greyscale" in changes and bool(changes["greyscale"]) != greyscale:
        raise UserError("view: set greyscale in the member's YAML, not differently in its view")
    settings["greyscale"] = greyscale
    for name in ("flux_to_jpg_like_dynamic_range", "fixed_crop"):
        if settings[name]:
            raise UserError(f"view: {name} needs FITS images, and only JPEG and PNG are read")
    if settings["pil_to_tensor"] is not True:
        raise UserError("view: pil_to_tensor: false needs FITS images, and only JPEG and PNG are read")
    _check_size(settings["output_size"])
    if "${" in repr(changes):
        raise UserError("view: ${...} is not filled in: write the value itself")
    made = View({str(name): value for name, value in settings.items()})
    if make(made._steps, Image.new("RGB", (300, 200)), Draws(0))[0].numpy().shape != made.shape:
        raise UserError(
            "view: these settings leave an image its own size, and a member needs one size: "
            "set random_affine, random_perspective, random_resized_crop or center_crop"
        )
    return json.loads(json.dumps(settings))  # as the plan stores them: lists, not tuples


def _check_size(size: Any) -> None:
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    if not all(type(side) is int and 1 <= side <= LARGEST for side in sides):
        raise UserError(f"view: output_size must be a number of pixels from 1 to {LARGEST}, not {size!r}")


class Draws:
    """A random stream of its own for one view, although torchvision draws from torch's global generator.

    Args:
        key: the seed.
    """

    def __init__(self, key: int) -> None:
        self._key = key
        self._state: torch.Tensor | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """A context in which no other thread draws, and torch's global generator continues this stream."""
        with GLOBAL_GENERATOR:
            if self._state is None:
                torch.default_generator.manual_seed(self._key)
            else:
                torch.default_generator.set_state(self._state)
            yield
            self._state = torch.default_generator.get_state()


def make(steps: Iterable[Any], image: Any, draws: Draws) -> tuple[Any, list[Drawn]]:
    """Apply steps of torchvision, as `step(image)` does, but hold the generator's lock only while drawing.

    Args:
        steps: transforms of torchvision's version 2.
        image: input of the first step.
        draws: random stream of this image.

    Returns:
        The output of the last step, and the steps that were applied, with their parameters.
    """
    from torchvision.transforms import v2

    done: list[Drawn] = []
    for step in steps:
        with draws.turn():
            if hasattr(step, "p") and torch.rand(1) >= step.p:
                continue
            parameters = None if isinstance(step, v2.RandomApply) else step.make_params([image])
        if parameters is None:
            image, some = make(step.transforms, image, draws)
            done += some
        else:
            image = step.transform(image, parameters)
            done.append((step, parameters))
    return image, done


def faster(image: Image.Image) -> Image.Image:
    """An image of mode RGB or L as a `CompiledImage`, if that has the same bits here."""
    # Imported here: planning does not need it, and it takes part of a second and memory.
    from beam_zoo.images.kernels.compiled_image import CompiledImage, is_pillows

    return image if isinstance(image, CompiledImage) or not is_pillows() else CompiledImage(image)


class View:
    """One view of galaxy_datasets.

    Args:
        settings: of the view.

    Attributes:
        random: whether two draws may differ.
        shape: (channel, height, width) of its pixels.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        from galaxy_datasets import transforms
        from omegaconf import DictConfig
        from torchvision.transforms import v2

        try:
            steps = list(transforms.get_galaxy_transform(DictConfig(settings)).transforms)
        except Exception as error:
            raise UserError(f"view: galaxy_datasets refuses these settings: {one_line(error)}") from None
        last = next(i for i, step in enumerate(steps) if isinstance(step, v2.ToDtype))
        self._steps = steps[:last]
        self._to_float = v2.Compose(steps[last:])
        self.random = is_random(settings)
        self._same: dict[tuple[int, int], list[Drawn]] = {}
        blank = Image.new("RGB", (424, 424))
        try:
            self.shape: tuple[int, int, int] = make(self._steps, blank, Draws(0))[0].numpy().shape
            self.to_float(torch.zeros((1, *self.shape), dtype=torch.uint8))
        except Exception as error:
            raise UserError(f"view: galaxy_datasets cannot use these settings: {one_line(error)}") from None

    def pixels(self, image: Image.Image, key: int | None = None) -> np.ndarray:
        """The view of one image, before the conversion to float.

        Args:
            image: a PIL image of mode RGB.
            key: the random key: the result is that of galaxy_datasets' own transform after
                `torch.manual_seed(key)`. None for a view without random draws.

        Returns:
            uint8, shape (channel, height, width).
        """
        image = faster(image)
        known = self._same.get(image.size) if key is None else None
        if known is None:
            made, drawn = make(self._steps, image, Draws(key or 0))
            if key is None and len(self._same) < SIZES_KEPT:
                self._same[image.size] = drawn
        else:
            made = image
            for step, parameters in known:
                made = step.transform(made, parameters)
        return made.numpy()

    def to_float(self, pixels: torch.Tensor) -> torch.Tensor:
        """The encoder's input: float32 in [0, 1] (or normalised), on the device of `pixels`.

        Args:
            pixels: uint8, shape (image, channel, height, width).
        """
        return self._to_float(pixels)


def is_random(settings: dict[str, Any]) -> bool:
    """Whether two draws of a view may differ; unknown settings count as random."""
    affine = settings["random_affine"]
    if affine:
        scale = affine.get("scale")
        spread = [affine.get("degrees", 0), affine.get("translate"), affine.get("shear")]
        if any(np.any(np.asarray(value, float) != 0) for value in spread if value is not None):
            return True
        if scale is not None and scale[0] != scale[1]:
            return True
    certain_flip = settings["flip_prob"] in (0, 1)
    crop = not affine and not settings["random_perspective"] and settings["random_resized_crop"]
    rotation = not affine and not settings["random_perspective"] and settings["rotation_prob"] > 0
    return bool(
        not certain_flip
        or (not affine and settings["random_perspective"])
        or crop
        or rotation
        or settings["color_jitter_prob"] > 0
        or settings["erase_iterations"] > 0
        or settings["posterize"]
        or settings["elastic_prob"] > 0
    )


def least_side(settings: dict[str, Any]) -> int | None:
    """The shorter side, in pixels, that an image must keep for the resolution of a view; None for all.

    A view that begins with an affine transform resizes the whole image. Other views crop a number of pixels.
    """
    affine = settings["random_affine"]
    if not affine:
        return None
    zoom = max(1.0, *(affine.get("scale") or (1.0,)))
    return math.ceil(zoom * np.max(settings["output_size"]))
