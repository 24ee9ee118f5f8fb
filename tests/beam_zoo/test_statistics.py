"""The statistics against zoobot's functions, scipy and direct loops."""

import numpy as np
import pytest
import scipy.stats
from zoobot.shared import schemas, stats

from beam_zoo.tables.statistics import DecisionTree, value_statistics

ALL = {name: value for name, value in vars(schemas).items() if isinstance(value, schemas.Schema)}


def concentrations(galaxies: int, answers: int, samples: int, seed: int = 0) -> np.ndarray:
    """Within Zoobot's bounds of 1 and 101, the bounds included: shape (galaxy, sample, answer)."""
    random = np.random.default_rng(seed)
    values = 1 + 100 / (1 + np.exp(-random.normal(0, 2, (galaxies, samples, answers))))
    values[random.random(values.shape) < 0.01] = 1
    values[random.random(values.shape) > 0.99] = 101
    return values


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 8, 33, 64])
def test_any_number_of_samples(samples):
    schema = schemas.gz_rings_schema
    given = concentrations(40, len(schema.label_cols), samples)
    given[:20, :] = given[:20, :1]  # equal ones
    ours = DecisionTree(schema).statistics(given)
    theirs = stats.get_confidence_intervals(given.transpose(0, 2, 1)[..., None], schema)
    for got, expected in zip((ours.lower, ours.upper), theirs, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_schema_of_zoobot(name):
    schema = ALL[name]
    given = concentrations(40, len(schema.label_cols), 6)
    ours = DecisionTree(schema).statistics(given)
    theirs = given.transpose(0, 2, 1).reshape(40, -1, 2, 3)
    fractions = stats.expected_value_of_dirichlet_mixture(theirs, schema)
    lower, upper = stats.get_confidence_intervals(theirs, schema)
    for got, expected in ((ours.fraction, fractions), (ours.lower, lower), (ours.upper, upper)):
        assert got.dtype == np.float32 and got.shape == (40, len(schema.label_cols))
        np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)
    for question in schema.questions:
        asked = stats.get_expected_votes_ml(fractions, question, 1, schema, round_votes=False)
        for index in range(question.start_index, question.end_index + 1):
            np.testing.assert_allclose(ours.asked[:, index], asked, atol=1e-6, rtol=0)
            np.testing.assert_array_equal(np.isnan(ours.masked_fraction[:, index]), asked < 0.5)
        total = ours.fraction[:, question.start_index : question.end_index + 1].sum(1)
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_intervals_are_beta_quantiles():
    """One sample: the interval is that of the answer's own Beta distribution, by sampling it."""
    schema = schemas.gz_rings_schema
    given = np.array([[[30.0, 10.0]]])
    tables = DecisionTree(schema).statistics(given)
    draws = scipy.stats.dirichlet([30, 10], seed=1).rvs(400_000)
    np.testing.assert_allclose(tables.lower[0], np.quantile(draws, 0.05, axis=0), atol=2e-3)
    np.testing.assert_allclose(tables.upper[0], np.quantile(draws, 0.95, axis=0), atol=2e-3)


def test_a_galaxy_does_not_depend_on_its_neighbours():
    schema = schemas.decals_dr8_ortho_schema
    given = concentrations(50, 34, 6)
    tree = DecisionTree(schema)
    together = tree.statistics(given)
    for galaxy in (0, 17, 49):
        alone = tree.statistics(given[galaxy : galaxy + 1])
        for name in ("fraction", "lower", "upper", "asked"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[galaxy])


def test_values_against_a_loop():
    random = np.random.default_rng(0)
    samples = random.normal(0, 3, (20, 7, 4)).astype(np.float32)
    samples[3, :, 2] = 1.5  # all the same
    got = value_statistics(samples)
    for galaxy in range(20):
        for output in range(4):
            values = samples[galaxy, :, output].astype(float)
            assert got.mean[galaxy, output] == pytest.approx(values.mean(), rel=1e-5, abs=1e-6)
            if (galaxy, output) == (3, 2):
                assert np.isnan([got.std[3, 2], got.lower[3, 2], got.upper[3, 2]]).all()
                continue
            spread = np.sqrt(((values - values.mean()) ** 2).sum() / 7)
            assert got.std[galaxy, output] == pytest.approx(spread, rel=1e-5)
            ordered = np.sort(values)
            for quantile, found in ((0.05, got.lower), (0.95, got.upper)):
                place = quantile * 6
                below = int(place)
                expected = ordered[below] + (place - below) * (ordered[min(6, below + 1)] - ordered[below])
                assert found[galaxy, output] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_one_sample_knows_no_spread():
    got = value_statistics(np.ones((3, 1, 2), np.float32))
    assert (got.mean == 1).all()
    assert np.isnan(np.stack([got.std, got.lower, got.upper])).all()
