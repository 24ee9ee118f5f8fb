"""Medians of few values, for many columns at once, by a sorting network."""

import functools

import numpy as np

LARGEST_NETWORK = 32
"""Number of values above which numpy's partition is faster than a sorting network."""

Comparator = tuple[int, int, bool, bool]


def median(values: np.ndarray) -> np.ndarray:
    """Median along the second to last axis; of an even number of values, the two in the middle.

    Args:
        values: shape (..., value, column); overwritten.

    Returns:
        Shape (middle, ..., column), one or two of them.
    """
    count = values.shape[-2]
    middle = sorted({(count - 1) // 2, count // 2})
    if count > LARGEST_NETWORK:
        values.partition(middle, axis=-2)
    else:
        buffer = np.empty((*values.shape[:-2], values.shape[-1]), values.dtype)
        for low, high, keep_low, keep_high in _comparators(count):
            a, b = values[..., low, :], values[..., high, :]
            if keep_low and keep_high:
                np.minimum(a, b, out=buffer)
                np.maximum(a, b, out=b)
                a[...] = buffer
            elif keep_low:
                np.minimum(a, b, out=a)
            else:
                np.maximum(a, b, out=b)
    return np.stack([values[..., index, :] for index in middle])


@functools.cache
def _comparators(count: int) -> list[Comparator]:
    """Batcher's odd-even merge sort, without what the middle does not need.

    Returns:
        The comparators in order: (low index, high index, keep the minimum, keep the maximum).
    """
    wanted = {(count - 1) // 2, count // 2}
    found: list[Comparator] = []
    for low, high in reversed(_network(count)):
        if low in wanted or high in wanted:
            found.append((low, high, low in wanted, high in wanted))
            wanted |= {low, high}
    return found[::-1]


def _network(count: int) -> list[tuple[int, int]]:
    """Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M."""
    found = []
    size = 1
    while size < count:
        step = size
        while step >= 1:
            for start in range(step % size, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        found.append((low, low + step))
            step //= 2
        size *= 2
    return found
