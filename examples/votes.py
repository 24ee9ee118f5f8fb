"""The demo's decision tree, and how simulated volunteers answer it.

Volunteers are asked whether a galaxy is smooth or featured; those who say featured, whether it has
spiral arms; and all of them, whether it has a ring.
"""

import numpy as np

from examples.galaxy import DISK, Galaxy

QUESTION_ANSWER_PAIRS: dict[str, list[str]] = {
    "smooth-or-featured": ["_smooth", "_featured-or-disk"],
    "has-spiral-arms": ["_yes", "_no"],
    "ring": ["_yes", "_no"],
}
"""Question to answer suffixes, in Zoobot's form."""

DEPENDENCIES: dict[str, str | None] = {
    "smooth-or-featured": None,
    "has-spiral-arms": "smooth-or-featured_featured-or-disk",
    "ring": None,
}
"""Question to the answer after which it is asked; None where everyone is asked."""

LABEL_COLS: list[str] = [
    question + answer for question, answers in QUESTION_ANSWER_PAIRS.items() for answer in answers
]
"""Answers in the order of the tree, e.g. `ring_yes`."""

CARELESS = 0.06
"""Share of volunteers who answer at random, which keeps every probability within 0.03 to 0.97."""

MEAN_VOLUNTEERS = 40
"""Mean number of volunteers who classify a galaxy."""


def _sigmoid(x: float) -> float:
    return float(1.0 / (1.0 + np.exp(-x)))


def answer_probabilities(galaxy: Galaxy) -> dict[str, float]:
    """True probability of each answer, given that its question is asked.

    A smooth function of the shape: features persuade volunteers by their contrast, less so where
    the disk is tilted, where the image is noisy, or where the seeing blurs them. The galaxy's
    offsets, which no image shows, shift the logits.

    Returns:
        One probability per entry of `LABEL_COLS`; the answers to a question add up to 1.
    """
    # How much of a feature survives noise and seeing, 0 to 1.
    clear = _sigmoid((np.log(galaxy.signal_to_noise) - np.log(2.7)) / 0.45)
    sharp = _sigmoid((galaxy.effective_radius / galaxy.seeing - 4.0) / 1.2)
    # How face-on the disk is, 0 to 1: arms and rings vanish by about 75 degrees.
    face_on = _sigmoid((np.cos(np.radians(galaxy.inclination)) - 0.3) / 0.07)
    visible = clear * sharp * face_on
    arms = visible * galaxy.arm_contrast * (1.0 - 0.5 * galaxy.bulge_fraction)
    ring = visible * galaxy.ring_strength

    if galaxy.morphology == DISK:
        edge_on = _sigmoid((0.32 - galaxy.axis_ratio) / 0.05)
        featured = -0.7 + 5.0 * arms + 3.0 * ring + 2.8 * edge_on - 1.5 * galaxy.bulge_fraction
    else:
        # An elongated elliptical is sometimes taken for a tilted disk.
        featured = -3.0 + 2.5 * (1.0 - galaxy.axis_ratio)

    yes = {
        "smooth-or-featured_featured-or-disk": _sigmoid(featured + galaxy.featured_offset),
        "has-spiral-arms_yes": _sigmoid(-2.8 + 8.0 * arms + galaxy.arms_offset),
        "ring_yes": _sigmoid(-3.2 + 8.0 * ring + galaxy.ring_offset),
    }
    yes = {answer: CARELESS / 2 + (1 - CARELESS) * p for answer, p in yes.items()}
    return {
        "smooth-or-featured_smooth": 1.0 - yes["smooth-or-featured_featured-or-disk"],
        "smooth-or-featured_featured-or-disk": yes["smooth-or-featured_featured-or-disk"],
        "has-spiral-arms_yes": yes["has-spiral-arms_yes"],
        "has-spiral-arms_no": 1.0 - yes["has-spiral-arms_yes"],
        "ring_yes": yes["ring_yes"],
        "ring_no": 1.0 - yes["ring_yes"],
    }


def draw_votes(probabilities: dict[str, float], rng: np.random.Generator) -> dict[str, int]:
    """Vote counts of about 40 volunteers: one multinomial draw a question, down the tree.

    Args:
        probabilities: as `answer_probabilities` returns them.
        rng: source of randomness.

    Returns:
        One count per entry of `LABEL_COLS`; a dependent question gets as many votes as the answer
        that leads to it.
    """
    volunteers = int(np.clip(rng.poisson(MEAN_VOLUNTEERS), 20, 70))
    votes: dict[str, int] = {}
    for question, answers in QUESTION_ANSWER_PAIRS.items():
        parent = DEPENDENCIES[question]
        asked = volunteers if parent is None else votes[parent]
        counts = rng.multinomial(asked, [probabilities[question + answer] for answer in answers])
        votes.update({question + a: int(n) for a, n in zip(answers, counts, strict=True)})
    return votes
