"""Measures the demo's members on unseen simulated galaxies, whose true vote fractions are known.

`python -m examples.evaluate` prints how well the ensemble separates disks from ellipticals and how
many true vote fractions its 90% intervals cover. It uses Zoobot's own classes in a plain loop.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from examples.galaxy import DISK
from examples.simulate import simulate_galaxies
from examples.train import TRAINING_SEED, demo_view
from examples.votes import DEPENDENCIES, LABEL_COLS, QUESTION_ANSWER_PAIRS

MEMBERS_FOLDER = Path(__file__).parent / "members"

UNSEEN_SEED = 2000
"""Survey that no member was trained on."""

PASSES = 5
"""Predictions of one galaxy by one member, each with another dropout mask."""


@dataclass(frozen=True)
class UnseenGalaxies:
    """Galaxies as the members see them, with the truth about them."""

    images: NDArray[np.float32]
    """Images after the view, 0 to 1, shape (galaxies, 3, output_size, output_size)."""
    probabilities: NDArray[np.float64]
    """True vote fraction of each answer, shape (galaxies, answers)."""
    is_disk: NDArray[np.bool_]
    """True class, shape (galaxies,)."""


@dataclass(frozen=True)
class Figures:
    """How well an ensemble predicts."""

    auc: float
    """Area under the ROC curve of featured-or-disk against smooth, for the true class."""
    coverage: dict[str, float]
    """By question, the share of true vote fractions of its answers within the 90% intervals."""
    disk_coverage: dict[str, float]
    """The same for disks alone: an elliptical has neither arms nor a ring, which is easy."""
    mean_absolute_error: dict[str, float]
    """By question, the mean distance of predicted from true vote fractions."""


def unseen_galaxies(count: int, output_size: int, seed: int = UNSEEN_SEED) -> UnseenGalaxies:
    """Simulates `count` galaxies and looks at their JPEGs through the view."""
    if seed == TRAINING_SEED:
        raise ValueError(f"seed {seed} is the seed of the training galaxies")
    view = demo_view(output_size)
    images, probabilities, is_disk = [], [], []
    for simulated in simulate_galaxies(count, seed):
        images.append(view(simulated.image()).numpy())
        probabilities.append([simulated.probabilities[label] for label in LABEL_COLS])
        is_disk.append(simulated.galaxy.morphology == DISK)
    return UnseenGalaxies(np.stack(images), np.array(probabilities), np.array(is_disk))


def member_files(folder: Path = MEMBERS_FOLDER) -> dict[Path, int]:
    """Checkpoint and view's output size, pixels, of each member in a folder of YAML files."""
    files: dict[Path, int] = {}
    for path in sorted(folder.glob("*.yaml")):
        member = yaml.safe_load(path.read_text())
        if "checkpoint" in member:
            files[folder / member["checkpoint"]] = int(member["view"]["output_size"])
    return files


def predict(
    checkpoints: Sequence[Path], images: NDArray[np.float32], passes: int = PASSES, seed: int = 0
) -> NDArray[np.float32]:
    """Dirichlet concentrations of each member and pass.

    Args:
        checkpoints: Lightning checkpoints of `ZoobotTree`.
        images: 0 to 1, shape (galaxies, 3, size, size).
        passes: forward passes a member, each with another dropout mask.
        seed: seed of the dropout masks.

    Returns:
        Concentrations, float32, shape (galaxies, answers, members, passes).
    """
    import torch
    from zoobot.pytorch.estimators.define_model import ZoobotTree

    torch.manual_seed(seed)
    by_member = []
    for checkpoint in checkpoints:
        model = ZoobotTree.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
        model.eval()
        with torch.inference_mode():
            by_pass = [
                torch.cat([model(batch) for batch in torch.from_numpy(images).split(64)])
                for _ in range(passes)
            ]
        by_member.append(torch.stack(by_pass, dim=-1))
    return torch.stack(by_member, dim=-2).numpy()


def measure(concentrations: NDArray[np.float32], unseen: UnseenGalaxies) -> Figures:
    """Compares predictions with the truth.

    Args:
        concentrations: shape (galaxies, answers, members, passes).
        unseen: the same galaxies.
    """
    from sklearn.metrics import roc_auc_score
    from zoobot.shared.schemas import Schema
    from zoobot.shared.stats import expected_value_of_dirichlet_mixture, get_confidence_intervals

    schema = Schema(QUESTION_ANSWER_PAIRS, DEPENDENCIES)
    fractions = expected_value_of_dirichlet_mixture(concentrations, schema)
    lower, upper = get_confidence_intervals(concentrations, schema, interval_width=0.9)
    covered = (lower <= unseen.probabilities) & (unseen.probabilities <= upper)
    error = np.abs(fractions - unseen.probabilities)
    featured = LABEL_COLS.index("smooth-or-featured_featured-or-disk")
    answers = {q.text: slice(q.start_index, q.end_index + 1) for q in schema.questions}
    return Figures(
        auc=float(roc_auc_score(unseen.is_disk, fractions[:, featured])),
        coverage={q: float(covered[:, columns].mean()) for q, columns in answers.items()},
        disk_coverage={q: float(covered[unseen.is_disk, columns].mean()) for q, columns in answers.items()},
        mean_absolute_error={q: float(error[:, columns].mean()) for q, columns in answers.items()},
    )


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.evaluate",
        description="Measure the demo's members on unseen simulated galaxies.",
    )
    parser.add_argument("--members", type=Path, default=MEMBERS_FOLDER, help="folder of YAML files")
    parser.add_argument("--galaxies", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--seed", type=int, default=UNSEEN_SEED, help="which survey")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    files = member_files(arguments.members)
    (output_size,) = set(files.values())
    unseen = unseen_galaxies(arguments.galaxies, output_size, arguments.seed)
    figures = measure(predict(list(files), unseen.images), unseen)
    print(f"AUC of featured-or-disk against smooth: {figures.auc:.4f}")
    for question, share in figures.coverage.items():
        error = figures.mean_absolute_error[question]
        disks = figures.disk_coverage[question]
        print(
            f"{question}: 90% intervals cover {share:.1%} ({disks:.1%} for disks alone), "
            f"mean absolute error {error:.3f}"
        )


if __name__ == "__main__":
    main()
