"""The image transforms of galaxy_datasets, named as there, as one function from an image to pixels.

A view ends in a conversion to float32 and an optional normalisation. Both are left to the device
(`View.to_float`), so that images travel as uint8, a quarter of the bytes, with the same numbers.
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
"""Sizes of images for which the parameters of a view without random draws are kept."""

GLOBAL_GENERATOR = threading.Lock()
"""Held by whoever draws from torch's global generator, which all threads of a process share.

galaxy_datasets' transforms draw from it, those of deterministic views too (a rotation between 0 and 0 degrees),
and so do the constructors of models.
"""
Drawn = tuple[Any, dict[str, Any]]
"""A step of torchvision, and the parameters that were drawn for it."""


def view_settings(view: str | dict[str, Any], greyscale: bool) -> dict[str, Any]:
    """Every setting of a view.

    Args:
        view: a name of galaxy_datasets, or a mapping of `base` (a name) and what differs from it.
        greyscale: whether the member takes one channel instead of three.

    Returns:
        The complete settings, as plain values that JSON holds.

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
    """The random draws of one view, in turns between which other threads draw theirs.

    Args:
        key: where they start.
    """

    def __init__(self, key: int) -> None:
        self._key = key
        self._state: torch.Tensor | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else draws, and torch's global generator goes on where this view's last turn left it."""
        with GLOBAL_GENERATOR:
            if self._state is None:
                torch.default_generator.manual_seed(self._key)
            else:
                torch.default_generator.set_state(self._state)
            yield
            self._state = torch.default_generator.get_state()


def make(steps: Iterable[Any], image: Any, draws: Draws) -> tuple[Any, list[Drawn]]:
    """Apply steps of torchvision as they apply themselves, but draw in turns: an image takes milliseconds, its draws few.

    Args:
        steps: transforms of torchvision's version 2.
        image: what the first of them takes.
        draws: of this image.

    Returns:
        What the last of them makes, and the steps that were not left out by chance, with their parameters.
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
    """An image of mode RGB or L as one whose views take less time, with the same bits; its second view, less again."""
    # Loaded here: it takes a part of a second, and memory, that planning does without.
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
            key: where the random draws start: the result is that of galaxy_datasets' own transform
                after `torch.manual_seed(key)`. None for a view without random draws.

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
        """What the encoder takes: float32 in [0, 1] (or normalised), on the device of `pixels`.

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
    """The shorter side, in pixels, of an image that still has all the detail that a view keeps; None if it must stay whole.

    A view that begins with an affine transform resizes the whole image, so that its own size does not matter. Others crop
    a number of pixels.
    """
    affine = settings["random_affine"]
    if not affine:
        return None
    zoom = max(1.0, *(affine.get("scale") or (1.0,)))
    return math.ceil(zoom * np.max(settings["output_size"]))
