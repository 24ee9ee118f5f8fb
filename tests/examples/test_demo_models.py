"""The committed members predict unseen simulated galaxies as well as the demo says they do.

The galaxies reach them through galaxy-datasets' own view and Zoobot's own classes, in a plain loop.
"""

from pathlib import Path

import pytest
import yaml

from examples.evaluate import (
    MEMBERS_FOLDER,
    Figures,
    UnseenGalaxies,
    measure,
    member_files,
    predict,
    unseen_galaxies,
)
from examples.train import MEMBERS, OUTPUT_SIZE, TRAINING_SEED
from examples.votes import DEPENDENCIES, QUESTION_ANSWER_PAIRS

pytestmark = pytest.mark.slow

GALAXIES = 400
MAX_CHECKPOINT_BYTES = 6_000_000

# Measured on these galaxies, by question. One galaxy in or out moves a share by 0.0025; the band
# allows for six, which other versions of torch, Pillow or a JPEG library may shift.
MEASURED_COVERAGE = {"smooth-or-featured": 0.960, "has-spiral-arms": 0.985, "ring": 0.970}
COVERAGE_BAND = 0.015


@pytest.fixture(scope="module")
def unseen() -> UnseenGalaxies:
    """Galaxies of another survey than the training one."""
    return unseen_galaxies(GALAXIES, OUTPUT_SIZE)


@pytest.fixture(scope="module")
def figures(unseen: UnseenGalaxies) -> Figures:
    """Figures of the ensemble of all committed members, with 5 passes each."""
    return measure(predict(list(member_files()), unseen.images), unseen)


def test_members_and_schema_agree_with_the_training_script() -> None:
    schema = yaml.safe_load((MEMBERS_FOLDER / "schema.yaml").read_text())
    assert schema["question_answer_pairs"] == QUESTION_ANSWER_PAIRS
    assert schema["dependencies"] == DEPENDENCIES
    files = member_files()
    assert [path.name for path in files] == [f"{spec.name}.ckpt" for spec in MEMBERS]
    assert set(files.values()) == {OUTPUT_SIZE}


@pytest.mark.parametrize("path", list(member_files()), ids=lambda path: path.stem)
def test_checkpoint_is_small_and_complete(path: Path) -> None:
    import torch

    assert path.stat().st_size < MAX_CHECKPOINT_BYTES
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    assert "optimizer_states" not in checkpoint
    spec = next(spec for spec in MEMBERS if spec.name == path.stem)
    expected = {
        "question_answer_pairs": QUESTION_ANSWER_PAIRS,
        "dependencies": DEPENDENCIES,
        "architecture_name": spec.architecture_name,
        "channels": 3,
        "test_time_dropout": True,
        "dropout_rate": 0.2,
    }
    saved = checkpoint["hyper_parameters"]
    assert {name: saved[name] for name in expected} == expected


def test_unseen_galaxies_are_unseen() -> None:
    with pytest.raises(ValueError, match="training galaxies"):
        unseen_galaxies(1, OUTPUT_SIZE, seed=TRAINING_SEED)


def test_featured_galaxies_are_told_from_smooth_ones(figures: Figures) -> None:
    print(f"AUC of featured-or-disk against smooth: {figures.auc:.4f}")
    assert figures.auc > 0.95


@pytest.mark.parametrize("question", QUESTION_ANSWER_PAIRS)
def test_intervals_cover_true_vote_fractions_as_stated(figures: Figures, question: str) -> None:
    print(f"{question}: 90% intervals cover {figures.coverage[question]:.1%}")
    print(f"{question}: mean absolute error {figures.mean_absolute_error[question]:.3f}")
    assert abs(figures.coverage[question] - MEASURED_COVERAGE[question]) <= COVERAGE_BAND


@pytest.mark.parametrize("question", QUESTION_ANSWER_PAIRS)
def test_vote_fractions_are_close_to_the_truth(figures: Figures, question: str) -> None:
    assert figures.mean_absolute_error[question] < 0.05
