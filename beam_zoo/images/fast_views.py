"""Views of many images at a time, on the device: galaxy_datasets' transforms of PIL images, batched.

The random numbers are the same. Pixels differ from the exact ones by rounding only: by one grey level, in
under 1% of the pixels on a CPU, where torch resizes as Pillow does, and in a few per cent on a GPU. The
algorithm is the same on both, but a CPU makes the exact views in half the time (`images.kernels.resample`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from beam_zoo.errors import UserError
from beam_zoo.images.views import GLOBAL_GENERATOR, SIZES_KEPT, View
from beam_zoo.runtime.device import AdaptiveBatches, host_buffer, used_here

GRID_IMAGES, GRID_PIXELS = {"cpu": 1, "cuda": 256}, 128 * 424 * 424
"""Most images and pixels of one resampling: on a CPU one image fits the cache; so many pixels take 1 GB."""
_JUST_BELOW = 1e-3
"""Added before truncation: a float32 just below a whole number is that number in Pillow's float64."""


@dataclasses.dataclass(frozen=True)
class Draw:
    """The random numbers of one view of one image.

    Attributes:
        matrix: from output to input pixels, float64, shape (2, 3); None without an affine step.
        flips: whether the image is flipped from left to right, and from top to bottom.
        erased: first row, first column, height and width of boxes that are made black.
    """

    matrix: np.ndarray | None
    flips: tuple[bool, bool]
    erased: tuple[tuple[int, int, int, int], ...]


class FastView(View):
    """One view of galaxy_datasets, of many images at once.

    Args:
        settings: of the view.
        device: where views are made, `cpu` or `cuda`.

    Raises:
        UserError: the view has a step that is not supported here.
    """

    def __init__(self, settings: dict[str, Any], device: str = "cpu") -> None:
        super().__init__(settings)
        self._device = device
        self._batches = AdaptiveBatches(GRID_IMAGES[device], "--fast_views", "images", "one image")
        self._affine: v2.RandomAffine | None = None
        self._sizing: list[Any] = []
        self._flips: list[Any] = []
        self._erasing: list[Any] = []
        for step in self._steps:
            if isinstance(step, v2.RandomAffine):
                self._affine = step
            elif isinstance(step, v2.Resize | v2.CenterCrop):
                self._sizing.append(step)
            elif isinstance(step, v2.RandomHorizontalFlip | v2.RandomVerticalFlip):
                self._flips.append(step)
            elif isinstance(step, v2.RandomErasing):
                self._erasing.append(step)
            elif not isinstance(step, v2.Grayscale | v2.PILToTensor):  # `raw` makes an image grey
                raise _unsupported(type(step).__name__)
        self._grey = bool(settings["greyscale"])
        if (method := settings["interpolation_method"]) != "bilinear":
            raise _unsupported(f"interpolation_method {method}")
        if self._affine is not None and np.any(self._affine.fill):
            raise _unsupported(f"fill {self._affine.fill}")
        self._same_draw = functools.lru_cache(SIZES_KEPT)(self._draw)

    def raw(self, image: Image.Image) -> np.ndarray:
        """The pixels of an image, grey if the view is.

        Args:
            image: a PIL image of mode RGB.

        Returns:
            uint8, shape (height, width, channel).
        """
        pixels = np.array(image.convert("L") if self._grey else image)
        return pixels if pixels.ndim == 3 else pixels[..., None]

    def draw(self, height: int, width: int, key: int | None = None) -> Draw:
        """The random numbers of a view, those that galaxy_datasets' own transform draws.

        Args:
            height, width: of the image.
            key: the random key, as in `View.pixels`; None for a view without random draws.
        """
        return self._same_draw(height, width, 0) if key is None else self._draw(height, width, key)

    def _draw(self, height: int, width: int, key: int) -> Draw:
        with GLOBAL_GENERATOR:
            torch.default_generator.manual_seed(key)
            matrix = None
            if self._affine is not None:
                image = torch.empty((1, height, width), device="meta")
                matrix = _inverse_matrix(height, width, **self._affine.make_params([image]))
            flips = [bool(torch.rand(1) < step.p) for step in self._flips]
            erased = []
            output = torch.empty(self.shape, device="meta")
            for step in self._erasing:
                if torch.rand(1) < step.p:
                    box = step.make_params([output])
                    erased.append((box["i"], box["j"], box["h"], box["w"]))
        return Draw(matrix, (flips[0], flips[1]), tuple(erased))

    def batch(
        self,
        images: Sequence[torch.Tensor],
        draws: Sequence[Sequence[Draw]],
        out: torch.Tensor,
        places: Sequence[int] | None = None,
    ) -> None:
        """The views of many images.

        Args:
            images: uint8, each of shape (height, width, channel), of any sizes, as `raw` makes them;
                images on the device are in colour.
            draws: of each image and view.
            out: output, uint8, shape (image, view, channel, height, width); on any device.
            places: index of each image in `out`; None for 0, 1, 2, ...
        """
        places = range(len(images)) if places is None else places
        views = out.shape[1]
        alike: dict[tuple[torch.Size, torch.device], list[int]] = {}
        for index, image in enumerate(images):
            alike.setdefault((image.shape, image.device), []).append(index)
        for (size, _), same_size in alike.items():

            def make(some: slice, same_size: list[int] = same_size) -> torch.Tensor:
                chosen = same_size[some]
                x = self._together([images[index] for index in chosen])
                made = [self._geometry(x, [draws[index][view] for index in chosen]) for view in range(views)]
                return (torch.stack(made, 1) if views > 1 else made[0][:, None]).to(out.device)

            most = max(1, GRID_PIXELS // (size[0] * size[1]))
            made = self._batches.work(len(same_size), make, most)
            out[torch.tensor([places[index] for index in same_size], device=out.device)] = made

    def _together(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Stack images of one size: uint8, shape (image, channel, height, width), on the device."""
        out = None if images[0].is_cuda else host_buffer((len(images), *images[0].shape), self._device)
        x = torch.stack(images, out=out).to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        return _grey(x) if self._grey and x.shape[1] == 3 else x

    def _geometry(self, x: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
        if self._affine is not None:
            x = self._resample(x, np.stack([draw.matrix for draw in draws if draw.matrix is not None]))
        for step in self._sizing:
            x = step(x)
        for axis, dimension in enumerate((-1, -2)):
            flipped = torch.tensor([draw.flips[axis] for draw in draws], device=x.device)
            if any(draw.flips[axis] for draw in draws):
                x = torch.where(flipped[:, None, None, None], x.flip(dimension), x)
        if any(draw.erased for draw in draws):
            x = x.masked_fill(_erased([draw.erased for draw in draws], x), 0)
        return x

    def _resample(self, x: torch.Tensor, matrices: np.ndarray) -> torch.Tensor:
        """Pillow's affine transform: bilinear, black outside the image, truncated to whole numbers."""
        height, width = x.shape[-2:]
        if (matrices == matrices[0]).all():
            grid, inside = _grid(matrices[0].tobytes(), height, width, str(x.device))
            grid = used_here(grid).expand(len(x), -1, -1, -1)
        else:
            grid, inside = _grids(matrices, height, width, str(x.device))
        # The sum also converts to float. As the result is a weighted mean, it grows by the same amount.
        x = torch.add(x, _JUST_BELOW)
        found = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
        if inside is not None:
            found.mul_(inside[:, None])
        return found.to(torch.uint8)


def _unsupported(what: str) -> UserError:
    return UserError(f"--fast_views cannot make a view with {what}: leave --fast_views out")


def _grey(x: torch.Tensor) -> torch.Tensor:
    """Pillow's conversion to grey (ITU-R 601-2 in 16 bits): uint8, shape (image, 1, height, width)."""
    red, green, blue = x.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[:, None]


def _erased(boxes: list[tuple[tuple[int, int, int, int], ...]], x: torch.Tensor) -> torch.Tensor:
    """Which pixels are in any of an image's boxes: bool, shape (image, 1, height, width)."""
    most = max(map(len, boxes))
    table = np.zeros((len(boxes), most, 4), np.int64)  # a box without height erases nothing
    for own, some in zip(table, boxes, strict=True):
        own[: len(some)] = np.array(some, np.int64).reshape(-1, 4)
    row, column, height, width = torch.from_numpy(table).to(x.device)[..., None].unbind(2)
    rows = torch.arange(x.shape[-2], device=x.device)
    columns = torch.arange(x.shape[-1], device=x.device)
    in_rows = ((rows >= row) & (rows < row + height)).float()
    in_columns = ((columns >= column) & (columns < column + width)).float()
    return (in_rows.mT @ in_columns > 0)[:, None]


def _inverse_matrix(
    height: int,
    width: int,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Sequence[float],
) -> np.ndarray:
    """The matrix from output to input pixels of torchvision's `affine`, which maps input to output.

    That is T C R Sy Sx s C^-1: rotation, shears (degrees) and scale about the centre, translation (pixels).
    """
    a, x, y = np.radians([angle, shear[0], shear[1]])
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    shear_y, shear_x = np.array([[1, 0], [-np.tan(y), 1]]), np.array([[1, -np.tan(x)], [0, 1]])
    inverse = np.linalg.inv(scale * rotation @ shear_y @ shear_x)
    centre = np.array([width / 2, height / 2])
    return np.column_stack([inverse, centre - inverse @ (centre + np.array(translate))])


@functools.lru_cache(maxsize=8)
def _grid(matrix: bytes, height: int, width: int, device: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The grid of one matrix, cached: deterministic views have one for each size of image."""
    grid, inside = _grids(np.frombuffer(matrix).reshape(1, 2, 3), height, width, device)
    return grid, None if inside.all() else inside


def _grids(matrices: np.ndarray, height: int, width: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The grid for grid_sample, shape (image, height, width, 2), and which points are inside the image."""
    whole = np.concatenate([matrices, np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(matrices), 1, 3))], axis=1)
    to_unit = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    theta = torch.from_numpy((to_unit @ whole @ np.linalg.inv(to_unit))[:, :2]).float().to(device)
    by_x, by_y, constant = theta[..., None, None].unbind(2)
    x, y = (2 * (torch.arange(n, device=device) + 0.5) / n - 1 for n in (width, height))
    # Not torch's affine_grid: its matrix product starts OpenMP threads even after `one_thread`.
    grid = (by_x * x + by_y * y[:, None] + constant).movedim(1, -1).contiguous()
    return grid, ((grid >= -1) & (grid < 1)).all(-1)
