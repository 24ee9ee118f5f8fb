"""The mixture's own interval against roots found with scipy, and against samples of the mixture itself."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from beam_zoo.tables.mixture import MixtureQuantiles
from beam_zoo.tables.statistics import INTERVAL

MIXTURE = MixtureQuantiles(INTERVAL)


def roots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same by scipy's root finder and distributions, a column at a time."""
    out = np.empty((len(INTERVAL), a.shape[1]))
    for column in range(a.shape[1]):
        beta = scipy.stats.beta(a[:, column], b[:, column])
        for number, p in enumerate(INTERVAL):
            root = scipy.optimize.brentq(lambda q: beta.cdf(q).mean() - p, 0, 1, xtol=1e-13)  # noqa: B023
            out[number, column] = root
    return out


def alike(samples: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Concentrations of members that agree more or less, as Zoobot's do."""
    random = np.random.default_rng(samples)
    around = random.normal(0, 1.8, (2, 1, columns))
    values = 1 + 100 / (1 + np.exp(-around - random.normal(0, 0.4, (2, samples, columns))))
    return values[0], values[1] * random.integers(1, 7, columns)


def unlike(samples: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Members that have nothing to do with each other: several peaks, and nothing between them."""
    random = np.random.default_rng(samples)
    return np.exp(random.uniform(0, np.log(101), (samples, columns))), np.exp(
        random.uniform(0, np.log(606), (samples, columns))
    )


@pytest.mark.parametrize("samples", [1, 2, 3, 6, 15, 20])
@pytest.mark.parametrize("make", [alike, unlike])
def test_roots(make, samples):
    a, b = make(samples, 400)
    np.testing.assert_allclose(MIXTURE.quantiles(a, b), roots(a, b), rtol=0, atol=1e-5)


def test_edges_and_flat_places():
    """Corners of the domain; one peak far from the others, at or near the probability that is asked for."""
    low, high = np.array([1.0, 101.0]), np.array([606.0, 1.0])
    a = np.array([[1, 101, 1, 101, 1], [1, 101, 606 / 6, 1, 101]], float)
    b = np.array([[606, 1, 1, 606, 606], [606, 606, 1, 606, 1]], float)
    np.testing.assert_allclose(MIXTURE.quantiles(a, b), roots(a, b), rtol=0, atol=1e-5)
    for samples in (19, 20, 21):  # a twentieth of the mixture lies far below the rest
        a = np.repeat(low[1], samples)[:, None].copy()
        b = np.repeat(high[1], samples)[:, None].copy()
        a[0], b[0] = low[0], high[0]
        found, expected = MIXTURE.quantiles(a, b), roots(a, b)
        cdf = scipy.stats.beta(a[:, 0], b[:, 0]).cdf
        for number, p in enumerate(INTERVAL):
            # Where the function is flat to the last bit, any point of the flat place is a root.
            flat = abs(cdf(found[number]).mean() - p) < 1e-12
            assert flat or abs(found[number] - expected[number]) < 1e-5


def test_outside_of_the_table():
    a, b = np.array([[0.5, 50, 120], [3, 60, 90]]), np.array([[0.7, 700, 3], [2, 500, 2]])
    np.testing.assert_allclose(MIXTURE.quantiles(a, b), roots(a, b), rtol=0, atol=1e-9)


def test_it_is_the_interval_of_samples():
    """Draw a member, then a vote fraction from it."""
    random = np.random.default_rng(5)
    a, b = alike(6, 3)
    found = MIXTURE.quantiles(a, b)
    for column in range(3):
        member = random.integers(0, 6, 1_000_000)
        drawn = random.beta(a[member, column], b[member, column])
        np.testing.assert_allclose(found[:, column], np.quantile(drawn, INTERVAL), atol=2e-3)


def test_one_sample_is_its_own_mixture():
    a, b = alike(1, 500)
    expected = [scipy.special.betaincinv(a[0], b[0], p) for p in INTERVAL]
    np.testing.assert_allclose(MIXTURE.quantiles(a, b), expected, rtol=0, atol=1e-6)


def test_a_column_does_not_depend_on_its_neighbours():
    a, b = (np.concatenate([x, y], axis=1) for x, y in zip(alike(9, 5000), unlike(9, 700), strict=True))
    together = MIXTURE.quantiles(a, b)
    order = np.random.default_rng(0).permutation(a.shape[1])
    assert np.array_equal(MIXTURE.quantiles(a[:, order], b[:, order]), together[:, order])
    for column in (0, 1023, 4999, 5100, 5699):
        alone = MIXTURE.quantiles(a[:, [column]], b[:, [column]])[:, 0]
        assert np.array_equal(alone, together[:, column])
