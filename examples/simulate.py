"""Simulates galaxies, and the votes of volunteers about them.

`python -m examples.simulate --galaxies 200 --output DIR` writes `DIR/images/*.jpg`,
`DIR/catalogue.csv` and `DIR/truth.csv`. A galaxy is a function of the seed and its number alone, so
the first 200 of 1000 galaxies are the same as 200.
"""

import argparse
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from examples.galaxy import REFERENCE_SIZE, Galaxy, draw_galaxy
from examples.render import render
from examples.votes import answer_probabilities, draw_votes

JPEG_QUALITY = 88

# Each kind of randomness has its own stream, so that e.g. the size does not change the votes.
_SHAPE_STREAM, _IMAGE_STREAM, _VOTE_STREAM = range(3)


@dataclass(frozen=True)
class SimulatedGalaxy:
    """One galaxy with its image and its votes."""

    id_str: str
    """Identifier, e.g. `sim-000123`."""
    galaxy: Galaxy
    """True parameters."""
    jpeg: bytes
    """RGB JPEG file."""
    probabilities: dict[str, float]
    """True probability of each answer, given that its question is asked."""
    votes: dict[str, int]
    """Number of volunteers who gave each answer."""

    def pixels(self) -> NDArray[np.uint8]:
        """The decoded JPEG, uint8, shape (size, size, 3)."""
        return np.asarray(self.image())

    def image(self) -> Image.Image:
        """The decoded JPEG as an RGB image."""
        with Image.open(io.BytesIO(self.jpeg)) as image:
            return image.convert("RGB")


def simulate_galaxy(seed: int, index: int, size: int = REFERENCE_SIZE) -> SimulatedGalaxy:
    """Galaxy number `index` of the survey `seed`, as a `size` by `size` pixel JPEG."""
    shape_rng, image_rng, vote_rng = (
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, stream)))
        for stream in (_SHAPE_STREAM, _IMAGE_STREAM, _VOTE_STREAM)
    )
    galaxy = draw_galaxy(shape_rng)
    buffer = io.BytesIO()
    Image.fromarray(render(galaxy, size, image_rng)).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    probabilities = answer_probabilities(galaxy)
    return SimulatedGalaxy(
        id_str=f"sim-{index:06d}",
        galaxy=galaxy,
        jpeg=buffer.getvalue(),
        probabilities=probabilities,
        votes=draw_votes(probabilities, vote_rng),
    )


def simulate_galaxies(count: int, seed: int, size: int = REFERENCE_SIZE) -> Iterator[SimulatedGalaxy]:
    """The first `count` galaxies of the survey `seed`, one at a time."""
    for index in range(count):
        yield simulate_galaxy(seed, index, size)


def truth_row(simulated: SimulatedGalaxy) -> dict[str, Any]:
    """One row of the truth table.

    Columns: `id_str`; the fields of `Galaxy`; `<answer>_probability`, the true probability of each
    answer given that its question is asked; `<answer>`, its number of votes.
    """
    return {
        "id_str": simulated.id_str,
        **asdict(simulated.galaxy),
        **{f"{answer}_probability": p for answer, p in simulated.probabilities.items()},
        **simulated.votes,
    }


def write_survey(output: Path, count: int, seed: int, size: int = REFERENCE_SIZE) -> None:
    """Writes images, catalogue and truth of `count` galaxies into the folder `output`."""
    images = output / "images"
    images.mkdir(parents=True, exist_ok=True)
    catalogue: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for simulated in simulate_galaxies(count, seed, size):
        file_loc = f"images/{simulated.id_str}.jpg"
        (output / file_loc).write_bytes(simulated.jpeg)
        row = truth_row(simulated)
        catalogue.append(
            {
                "id_str": simulated.id_str,
                "file_loc": file_loc,
                "ra": round(row["ra"], 6),
                "dec": round(row["dec"], 6),
            }
        )
        truth.append(row)
    pd.DataFrame(catalogue, columns=["id_str", "file_loc", "ra", "dec"]).to_csv(
        output / "catalogue.csv", index=False
    )
    pd.DataFrame(truth).to_csv(output / "truth.csv", index=False)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.simulate",
        description="Simulate galaxies, and the votes of volunteers about them.",
    )
    parser.add_argument("--galaxies", type=int, required=True, help="how many")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="which survey (default 0)")
    parser.add_argument(
        "--size", type=int, default=REFERENCE_SIZE, help="side of an image, pixels (default 424)"
    )
    arguments = parser.parse_args(argv)
    write_survey(arguments.output, arguments.galaxies, arguments.seed, arguments.size)


if __name__ == "__main__":
    main()
