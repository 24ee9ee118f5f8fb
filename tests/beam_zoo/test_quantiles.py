"""The table of Beta quantiles against scipy, over its whole domain, at its edges and outside."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from beam_zoo.tables.quantiles import A_LARGEST, B_LARGEST, BetaQuantiles, logit_by_scipy
from beam_zoo.tables.statistics import INTERVAL

QUANTILES = BetaQuantiles(INTERVAL)


def errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest difference to scipy's inverse, for each quantile."""
    found = scipy.special.expit(QUANTILES.logits(a.ravel(), b.ravel()))
    expected = [scipy.special.betaincinv(a.ravel(), b.ravel(), p) for p in INTERVAL]
    return np.abs(found - expected).max(1)


def test_the_whole_domain():
    """A grid much finer than the interpolant's nodes, with all edges and corners."""
    a = np.exp(np.linspace(0, np.log(A_LARGEST), 500))
    b = np.exp(np.linspace(0, np.log(B_LARGEST), 600))
    a[[0, -1]], b[[0, -1]] = (1, A_LARGEST), (1, B_LARGEST)
    assert (errors(*np.meshgrid(a, b)) < 3e-8).all()


def test_random_points():
    random = np.random.default_rng(0)
    a, b = (np.exp(random.uniform(0, np.log(most), 200_000)) for most in (A_LARGEST, B_LARGEST))
    assert (errors(a, b) < 3e-8).all()
    a, b = (random.uniform(1, most, 200_000) for most in (A_LARGEST, B_LARGEST))
    assert (errors(a, b) < 3e-8).all()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (0.5, 3),
        (0.999, 50),
        (101.5, 10),
        (50, 607),
        (5, 0.3),
        (1000, 2),
        (0.1, 0.1),
        (1, 606.0001),
        (101.001, 1),
    ],
)
def test_outside_is_scipy(a, b):
    """To the last bit, whatever stands beside it."""
    beside = np.linspace(1, 100, 50)
    found = QUANTILES.logits(np.r_[beside, a, beside], np.r_[beside, b, beside])[:, 50]
    assert list(found) == [logit_by_scipy(np.array([a]), np.array([b]), p)[0] for p in INTERVAL]
    np.testing.assert_allclose(scipy.special.expit(found), scipy.stats.beta(a, b).ppf(INTERVAL), rtol=1e-9)


def test_a_value_does_not_depend_on_its_neighbours():
    random = np.random.default_rng(1)
    a, b = random.uniform(1, 101, 20_011), random.uniform(1, 606, 20_011)
    together = QUANTILES.logits(a, b)
    order = random.permutation(len(a))
    assert np.array_equal(QUANTILES.logits(a[order], b[order]), together[:, order])
    for index in (0, 8191, 8192, 20_010):
        assert np.array_equal(QUANTILES.logits(a[[index]], b[[index]])[:, 0], together[:, index])
