"""The work that benchmarks share: 2 ZoobotTree members, convnext_nano with random weights, 424 px JPEGs."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import torch

MEMBERS, PASSES, ARCHITECTURE = ("a", "b"), 3, "convnext_nano"
VIEW = {"base": "minimal", "output_size": 224}
PIXELS = 424


def write_catalogue(folder: Path, galaxies: int) -> Path:
    """A catalogue of as many galaxies: real images if there are any, else simulated, repeated as needed.

    Args:
        folder: where the catalogue (and simulated images) are written.
        galaxies: how many rows.
    """
    from examples.simulate import write_survey
    from tests.galaxies import REAL

    if (REAL / "catalogue.csv").exists():
        images = pd.read_csv(REAL / "catalogue.csv", dtype=str)
        locations = [str(REAL / location) for location in images["file_loc"]]
    else:
        write_survey(folder / "sky", min(galaxies, 128), 0)
        images = pd.read_csv(folder / "sky" / "catalogue.csv", dtype=str)
        locations = [str(folder / "sky" / location) for location in images["file_loc"]]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "catalogue.csv"
    names = [f"galaxy {number:05d}" for number in range(galaxies)]
    chosen = [locations[number % len(locations)] for number in range(galaxies)]
    pd.DataFrame({"id_str": names, "file_loc": chosen}).to_csv(path, index=False)
    return path


def write_members(
    folder: Path, architecture: str = ARCHITECTURE, view: dict[str, Any] | None = None
) -> list[Path]:
    """Checkpoints `a.ckpt`, `b.ckpt`, and their YAML files, which are returned."""
    from tests import checkpoints

    found = []
    for seed, name in enumerate(MEMBERS):
        path = checkpoints.tree(folder / f"{name}.ckpt", seed=seed, architecture_name=architecture)
        found.append(checkpoints.member(folder / f"{name}.yaml", path, view=view or VIEW))
    return found


def load_members(folder: Path, device: str = "cpu") -> "list[Any]":
    """The members of `write_members`, as zoobot loads them."""
    from tests import oracle

    return [oracle.load_tree(folder / f"{name}.ckpt").to(device) for name in MEMBERS]


def forward(model: Any, pixels: "torch.Tensor", passes: int = PASSES) -> "torch.Tensor":
    """The bare work of a member: the encoder once, the head once a pass.

    Args:
        model: a ZoobotTree; its `encoder` may be compiled.
        pixels: uint8, shape (image, channel, height, width), on the model's device.
        passes: of the head.

    Returns:
        float32, shape (image, pass, answer).
    """
    import torch

    features = model.encoder(pixels.float() / 255).float()
    with torch.autocast(pixels.device.type, enabled=False):
        return torch.stack([model.head(features) for _ in range(passes)], 1)


def predict_words(folder: Path, output: Path, *words: str, prefix: str = "") -> list[str]:
    """The arguments of `pipelines.predict` for a folder's catalogue and members; files may have a prefix."""
    models = [str(folder / f"{prefix}{name}.yaml") for name in MEMBERS]
    return [
        "--catalogue",
        str(folder / "catalogue.csv"),
        "--models",
        *models,
        "--output",
        str(output),
        *words,
    ]


@contextlib.contextmanager
def asked(module: str, *words: str) -> Iterator[Callable[[], dict[str, float]]]:
    """A program of its own that measures once more whenever it is asked: `answer` on the other side."""
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, "-m", module, *words], stdin=pipe, stdout=pipe, stderr=said, text=True
        ) as program,
    ):
        assert program.stdin is not None and program.stdout is not None
        questions, answers = program.stdin, program.stdout

        def ask() -> dict[str, float]:
            print("again", file=questions, flush=True)
            for line in answers:
                if line.startswith("{"):  # else it is what the command itself prints
                    return json.loads(line)
            said.seek(0)
            raise SystemExit(f"{said.read()[-3000:]}\n{module} {' '.join(words)} ended")

        yield ask
        questions.close()


def answer(measure: Callable[[], dict[str, float]]) -> None:
    """Measure for every line of the standard input, until it ends."""
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


def fractions(model: Any, features: "torch.Tensor") -> np.ndarray:
    """Vote fractions of a ZoobotTree without dropout, of an encoder's features: shape (galaxy, answer)."""
    votes = model.head[1](features).double().numpy()
    questions = [slice(q.start_index, q.end_index + 1) for q in model.schema.questions]
    return np.concatenate([votes[:, q] / votes[:, q].sum(1, keepdims=True) for q in questions], axis=1)


def change(found: np.ndarray, exact: np.ndarray) -> str:
    """How far numbers are from others: median, 99th percentile and largest."""
    moved = np.abs(found - exact)
    return f"{np.median(moved):.1e}  {np.quantile(moved, 0.99):.1e}  {moved.max():.1e}"


def describe() -> str:
    """Versions, device and commit."""
    import torch

    names = ("apache-beam", "torch", "timm", "zoobot", "numpy", "scipy", "pyarrow", "pillow")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout.strip()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    machine = f"python {platform.python_version()}, {versions}; {device}, {os.cpu_count()} cores"
    return f"{machine}; commit {commit or 'unknown'}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
