"""Medians by a sorting network against numpy's."""

import numpy as np
import pytest

from beam_zoo.tables.medians import median


@pytest.mark.parametrize("count", [*range(1, 41), 64, 101])
def test_any_number_of_values(count):
    values = np.random.default_rng(count).normal(size=(2, 3, count, 50))
    values[..., :10] = values[..., :1, :10]  # equal ones
    expected = np.median(values, axis=-2)
    found = median(values.copy())
    assert len(found) == (1 if count % 2 else 2)
    np.testing.assert_array_equal(found.mean(0), expected)
