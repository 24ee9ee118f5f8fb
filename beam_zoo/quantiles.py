"""Beta distributions, many at once: what is smooth in (log a, log b) is read from small tables.

The logit of a quantile of Beta(a, b) is so smooth in (log a, log b) that a Chebyshev interpolant of a few terms in each
reproduces it over all concentrations that Zoobot can give. A table's coefficients are computed from scipy when it is
first needed; evaluating it is one matrix product. Outside of the domain scipy itself is called. Interpolation at
Chebyshev nodes: Trefethen, Approximation Theory and Approximation Practice, chapters 3-4.
"""

import numpy as np
import scipy.special

A_MOST, B_MOST = 101.0, 606.0
"""Zoobot's concentrations lie in [1, 101]; the others of a question with up to 7 answers sum to [1, 606]."""
TERMS = 16
"""In each direction; the quantiles are then within 3e-8 of scipy's, everywhere in the domain."""
_AT_ONCE = 1 << 18
"""Numbers of a matrix product: they stay in the processor's cache."""


class Table:
    """Smooth functions of (a, b) over the domain.

    Args:
        functions: their values at `nodes(terms)`, shape (function, b, a).
    """

    def __init__(self, functions: np.ndarray) -> None:
        self._count, self._terms, _ = functions.shape
        self._block = _AT_ONCE // (self._count * self._terms)
        # Discrete orthogonality of the Chebyshev polynomials on their nodes.
        angles = np.arccos(_chebyshev_nodes(self._terms))
        to_coefficients = np.cos(np.outer(np.arange(self._terms), angles)) * 2 / self._terms
        to_coefficients[0] /= 2
        self._coefficients = np.concatenate(
            [to_coefficients @ each @ to_coefficients.T for each in functions]
        )

    def values(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The functions' values, nonsense outside of the domain; a value does not depend on its neighbours.

        Args:
            a, b: parameters, float64, shape (n,).

        Returns:
            float64, shape (function, n).
        """
        out = np.empty((self._count, len(a)))
        for start in range(0, len(a), self._block):
            piece = slice(start, start + self._block)
            count = len(a[piece])
            # A matrix product may sum in another order at the edge of its matrices: all have the same shape.
            t = np.ones((2, self._block))
            t[0, :count], t[1, :count] = a[piece], b[piece]
            np.log(t, out=t)
            t *= [[2 / np.log(A_MOST)], [2 / np.log(B_MOST)]]
            t -= 1
            powers = _chebyshev(t, self._terms)
            by_b = (self._coefficients @ powers[:, 0]).reshape(self._count, self._terms, self._block)
            by_b *= powers[:, 1]
            out[:, piece] = by_b.sum(1)[:, :count]
        return out


def nodes(terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the functions of a table must be known: a of shape (1, terms), b of shape (terms, 1)."""
    at = (_chebyshev_nodes(terms) + 1) / 2
    return A_MOST ** at[None], B_MOST ** at[:, None]


def inside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether parameters are in the domain of the tables."""
    return (a >= 1) & (a <= A_MOST) & (b >= 1) & (b <= B_MOST)


class BetaQuantiles:
    """Quantiles of Beta(a, b), as logits.

    Args:
        probabilities: which quantiles.
        terms: of the interpolant in each direction.
    """

    def __init__(self, probabilities: tuple[float, ...], terms: int = TERMS) -> None:
        self._probabilities = probabilities
        self._table = Table(np.stack([logit_by_scipy(*nodes(terms), p) for p in probabilities]))

    def logits(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Logits of the quantiles; a value does not depend on its neighbours.

        Args:
            a, b: parameters, float64, shape (n,).

        Returns:
            float64, shape (quantile, n).
        """
        out = self._table.values(a, b)
        if not (known := inside(a, b)).all():
            outside = ~known
            for number, p in enumerate(self._probabilities):
                out[number, outside] = logit_by_scipy(a[outside], b[outside], p)
        return out


def logit_by_scipy(a: np.ndarray, b: np.ndarray, p: float) -> np.ndarray:
    """logit of the p quantile of Beta(a, b); both ends without cancellation."""
    return np.log(scipy.special.betaincinv(a, b, p)) - np.log(scipy.special.betaincinv(b, a, 1 - p))


def _chebyshev_nodes(terms: int) -> np.ndarray:
    return np.cos(np.pi * (np.arange(terms) + 0.5) / terms)


def _chebyshev(t: np.ndarray, terms: int) -> np.ndarray:
    """Chebyshev polynomials T_0 ... of every t, shape (term, *t.shape)."""
    out = np.empty((terms, *t.shape))
    out[0], out[1] = 1, t
    have = 1  # T_0 ... T_have; T_(m+n) = 2 T_m T_n - T_(m-n) doubles them at each step
    while have < terms - 1:
        more = min(have, terms - 1 - have)
        np.multiply(2 * out[have], out[1 : 1 + more], out=out[have + 1 : have + 1 + more])
        out[have + 1 : have + 1 + more] -= out[have - more : have][::-1]
        have += more
    return out
