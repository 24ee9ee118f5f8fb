"""What the audit expects of tables: the numbers of the statistics, by none of their code."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from zoobot.shared import schemas

from beam_zoo.auditing.expected import GALAXIES_BY_DEFINITION, Definitions, median_bounds, mixture_bounds
from beam_zoo.auditing.table_files import masked_fractions
from beam_zoo.plan.plan import MEDIAN, MIXTURE
from beam_zoo.tables.columns import TableColumns
from beam_zoo.tables.statistics import DecisionTree
from tests.beam_zoo.test_mixture import roots

GALAXIES, SAMPLES = 64, 6
SCHEMA = schemas.decals_dr8_ortho_schema


def plan(kind: str, interval: str = MEDIAN) -> Any:
    """What statistics need to know of a plan with one table part of `GALAXIES` rows."""
    pairs = SCHEMA.question_answer_pairs
    schema = {"question_answer_pairs": pairs, "dependencies": {q: SCHEMA.dependencies[q] for q in pairs}}
    return SimpleNamespace(
        kind=kind,
        interval=interval,
        members=[SimpleNamespace(schema=schema if kind == "tree" else None)],
        outputs=tuple(SCHEMA.label_cols) if kind == "tree" else ("a", "b", "c"),
        table_rows=lambda part: range(GALAXIES),
    )


def samples(kind: str) -> np.ndarray:
    random = np.random.default_rng(1)
    if kind == "tree":
        return random.uniform(1, 101, (GALAXIES, SAMPLES, len(SCHEMA.label_cols))).astype(np.float32)
    values = random.dirichlet([1, 2, 3], (GALAXIES, SAMPLES)).astype(np.float32)
    values[3] = values[3, :1]  # all samples are the same
    return values


@pytest.mark.parametrize(
    ("kind", "interval"),
    [("tree", MEDIAN), ("tree", MIXTURE), ("classifier", MEDIAN), ("regressor", MEDIAN)],
)
def test_the_numbers_of_the_statistics(kind: str, interval: str) -> None:
    made, values = plan(kind, interval), samples(kind)
    expected = Definitions(made).numbers(np.arange(GALAXIES), values)
    friendly, advanced = TableColumns(made).compute(values)
    np.testing.assert_allclose(expected.reshape(advanced.shape), advanced, rtol=0, atol=1e-6)
    right = masked_fractions(expected, np.ma.masked_array(advanced)) if kind == "tree" else expected[..., 0]
    np.testing.assert_allclose(right, friendly, rtol=0, atol=1e-6)


def test_few_samples() -> None:
    values = samples("regressor")
    for count in (1, 2):
        expected = Definitions(plan("regressor")).numbers(np.arange(GALAXIES), values[:, :count])
        _, advanced = TableColumns(plan("regressor")).compute(values[:, :count])
        np.testing.assert_allclose(expected.reshape(advanced.shape), advanced, rtol=0, atol=1e-6)


def test_the_bounds_by_definition() -> None:
    random = np.random.default_rng(2)
    a, b = random.uniform(1, 101, (2, 5, SAMPLES, 3))
    for answer in range(3):
        expected = roots(a[..., answer].T, b[..., answer].T)
        np.testing.assert_allclose(mixture_bounds(a, b)[:, answer].T, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(median_bounds(a[:, :1], b[:, :1]).shape, (5, 3, 2))
    alike = np.repeat(a[:, :1], 2, 1), np.repeat(b[:, :1], 2, 1)
    np.testing.assert_allclose(mixture_bounds(*alike), median_bounds(*alike), rtol=0, atol=1e-6)


@pytest.mark.parametrize("interval", [MEDIAN, MIXTURE])
def test_statistics_that_are_wrong_everywhere_are_found(
    interval: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the audit itself calls that code: for the bounds of most galaxies."""
    made, values = plan("tree", interval), samples("tree")
    fractions = DecisionTree._fractions

    def wrong(self: DecisionTree, concentrations: np.ndarray) -> tuple[np.ndarray, ...]:
        fraction, lower, upper = fractions(self, concentrations)
        return fraction - 1e-4, lower - 1e-4, upper + 1e-4

    monkeypatch.setattr(DecisionTree, "_fractions", wrong)
    expected = Definitions(made).numbers(np.arange(GALAXIES), values)
    _, advanced = TableColumns(made).compute(values)
    off = np.abs(expected - advanced.reshape(expected.shape)) > 5e-5
    assert off[..., 0].all()
    by_definition = np.arange(GALAXIES) % (GALAXIES // GALAXIES_BY_DEFINITION) == 0
    assert off[by_definition, :, 1:3].all()
    assert 0 < by_definition.sum() == GALAXIES_BY_DEFINITION < GALAXIES


def test_the_edge_of_the_mask() -> None:
    """Where float32 noise decides, the advanced table says on which side a proportion asked is."""
    asked = np.array([0.5 - 1e-8, 0.5 + 1e-8, 0.5 - 1e-8, 0.4, 0.6])
    numbers = np.stack([np.full(5, 0.25), *np.zeros((2, 5)), asked], axis=-1)[:, None]
    stored = np.ma.masked_array(numbers.reshape(5, 4).copy())
    stored[:, 3] = [0.5, 0.5 - 1e-7, 0.7, 0.4, 0.6]
    right = masked_fractions(numbers, stored)[:, 0]
    np.testing.assert_array_equal(right.filled(-1), [0.25, np.nan, -1, np.nan, 0.25])
    stored[0] = np.ma.masked  # it lacks the galaxy
    for advanced in (stored, None):
        right = masked_fractions(numbers, advanced)[:, 0]
        assert right.mask[[0, 2]].all() and not right.mask[3:].any()
