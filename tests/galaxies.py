"""Galaxy images for tests: real ones where a folder of them is at hand, else simulated."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

REAL = Path(os.environ.get("BEAM_ZOO_GALAXIES", Path(__file__).parents[2] / "shared" / "galaxies"))


def simulated(folder: Path, count: int, size: int = 96, seed: int = 0) -> pd.DataFrame:
    """A catalogue of small noisy blobs: `id_str`, `file_loc` (relative to the folder), `ra`, `dec`."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    rows = []
    for number in range(count):
        axis, angle, width = random.uniform(0.3, 1), random.uniform(0, np.pi), random.uniform(0.1, 0.5)
        u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / axis
        blob = np.exp(-np.hypot(u, v) / width)[..., None] * random.uniform(0.5, 1, 3)
        pixels = np.clip(255 * (blob + random.normal(0, 0.03, (size, size, 3))), 0, 255).astype(np.uint8)
        name = f"images/{number:04d}.jpg"
        Image.fromarray(pixels).save(folder / name, quality=92)
        rows.append((f"gal {number:04d}", name, random.uniform(0, 360), random.uniform(-90, 90)))
    catalogue = pd.DataFrame(rows, columns=["id_str", "file_loc", "ra", "dec"])
    catalogue.to_csv(folder / "catalogue.csv", index=False)
    return catalogue


def best(folder: Path, count: int) -> Path:
    """Write a catalogue of up to `count` real galaxies, or of simulated ones; returns the CSV's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "catalogue.csv"
    if (REAL / "catalogue.csv").exists():
        catalogue = pd.read_csv(REAL / "catalogue.csv", dtype=str).head(count)
        catalogue["file_loc"] = [str(REAL / location) for location in catalogue["file_loc"]]
        catalogue["ra"] = np.linspace(0, 359, len(catalogue))
        catalogue.to_csv(path, index=False)
    else:
        simulated(folder, count)
    return path
