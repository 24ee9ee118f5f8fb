"""The simulated galaxies are reproducible, and their votes follow the decision tree."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from examples.galaxy import DISK, ELLIPTICAL, Galaxy, draw_galaxy
from examples.simulate import main, simulate_galaxies, simulate_galaxy
from examples.votes import (
    DEPENDENCIES,
    LABEL_COLS,
    QUESTION_ANSWER_PAIRS,
    answer_probabilities,
    draw_votes,
)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 12 galaxies of 106 pixels, written by the command line."""
    folder = tmp_path_factory.mktemp("survey")
    main(["--galaxies", "12", "--output", str(folder), "--seed", "7", "--size", "106"])
    return folder


def test_a_galaxy_depends_on_seed_and_index_only() -> None:
    five = list(simulate_galaxies(5, seed=3, size=64))
    assert five[:2] == list(simulate_galaxies(2, seed=3, size=64))
    assert five[4] == simulate_galaxy(seed=3, index=4, size=64)
    assert len({simulated.jpeg for simulated in five}) == 5
    assert five[4].jpeg != simulate_galaxy(seed=4, index=4, size=64).jpeg


def test_size_changes_the_image_only() -> None:
    small, large = simulate_galaxy(3, 0, size=64), simulate_galaxy(3, 0)
    assert small.image().size == (64, 64)
    assert large.image().size == (424, 424)
    assert (small.galaxy, small.votes) == (large.galaxy, large.votes)


def test_catalogue_lists_the_images(survey: Path) -> None:
    catalogue = pd.read_csv(survey / "catalogue.csv")
    assert list(catalogue.columns) == ["id_str", "file_loc", "ra", "dec"]
    assert list(catalogue["id_str"]) == [f"sim-{index:06d}" for index in range(12)]
    assert catalogue["ra"].between(0, 360).all() and catalogue["dec"].between(-90, 90).all()
    for file_loc in catalogue["file_loc"]:
        with Image.open(survey / file_loc) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (106, 106))
            # Neither black nor burnt out: the galaxy is in the middle, the sky around it.
            pixels = np.asarray(image, dtype=float)
        assert pixels[43:63, 43:63].mean() > pixels.mean() + 5
        assert 1 < np.median(pixels) < 60


def test_truth_has_shape_probabilities_and_votes(survey: Path) -> None:
    truth = pd.read_csv(survey / "truth.csv")
    shape = [field.name for field in fields(Galaxy)]
    probability = [f"{label}_probability" for label in LABEL_COLS]
    assert list(truth.columns) == ["id_str", *shape, *probability, *LABEL_COLS]
    assert set(truth["morphology"]) <= {DISK, ELLIPTICAL}
    assert not truth.isna().any().any()


def test_votes_follow_the_tree(survey: Path) -> None:
    truth = pd.read_csv(survey / "truth.csv")
    total = {
        question: truth[[question + answer for answer in answers]].sum(axis=1)
        for question, answers in QUESTION_ANSWER_PAIRS.items()
    }
    volunteers = total["smooth-or-featured"]
    assert volunteers.between(20, 70).all()
    for question, parent in DEPENDENCIES.items():
        expected = volunteers if parent is None else truth[parent]
        assert (total[question] == expected).all()


def test_probabilities_add_up_and_votes_scatter_about_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        probabilities = answer_probabilities(draw_galaxy(rng))
        assert list(probabilities) == LABEL_COLS
        for question, answers in QUESTION_ANSWER_PAIRS.items():
            assert sum(probabilities[question + a] for a in answers) == pytest.approx(1)
        assert all(0.03 <= p <= 0.97 for p in probabilities.values())
        votes = pd.DataFrame([draw_votes(probabilities, rng) for _ in range(200)]).sum()
        for question in QUESTION_ANSWER_PAIRS:
            answers = [question + a for a in QUESTION_ANSWER_PAIRS[question]]
            fraction = votes[answers[0]] / votes[answers].sum()
            # At least 200 x 20 x 0.03 votes a question, so five standard errors are below 0.25.
            spread = np.sqrt(0.25 / votes[answers].sum())
            assert abs(fraction - probabilities[answers[0]]) < 5 * spread


def test_stronger_features_persuade_more_volunteers() -> None:
    disks = [g for g in (draw_galaxy(np.random.default_rng(i)) for i in range(300)) if g.ring_width]
    for galaxy in disks:
        plain = Galaxy(**{**vars(galaxy), "arm_contrast": 0.0, "ring_strength": 0.0})
        armed = Galaxy(**{**vars(plain), "arm_contrast": 0.9})
        ringed = Galaxy(**{**vars(plain), "ring_strength": 0.9})
        p, with_arms, with_ring = map(answer_probabilities, (plain, armed, ringed))
        assert with_arms["has-spiral-arms_yes"] > p["has-spiral-arms_yes"]
        assert with_ring["ring_yes"] > p["ring_yes"]
        for changed in (with_arms, with_ring):
            label = "smooth-or-featured_featured-or-disk"
            assert changed[label] > p[label]
