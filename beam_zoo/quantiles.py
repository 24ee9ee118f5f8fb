"""The bounds of Beta distributions' intervals, many at once, from one small table.

The logit of a quantile of Beta(a, b) is so smooth in (log a, log b) that a Chebyshev interpolant of a few terms in each
reproduces it over all concentrations that Zoobot can give. A tensor of coefficients per quantile is computed from
scipy's inverse when it is first needed; evaluating it is one matrix product. Outside of the table's domain scipy itself
is called. Interpolation at Chebyshev nodes: Trefethen, Approximation Theory and Approximation Practice, chapters 3-4.
"""

import numpy as np
import scipy.special

A_MOST, B_MOST = 101.0, 606.0
"""Zoobot's concentrations lie in [1, 101]; the others of a question with up to 7 answers sum to [1, 606]."""
TERMS = 16
"""In each direction; the quantiles are then within 3e-8 of scipy's, everywhere in the domain."""
_BLOCK = 8192


class BetaQuantiles:
    """Quantiles of Beta(a, b), as logits.

    Args:
        probabilities: which quantiles.
        terms: of the interpolant in each direction.
    """

    def __init__(self, probabilities: tuple[float, ...], terms: int = TERMS) -> None:
        self._probabilities, self._terms = probabilities, terms
        nodes = np.cos(np.pi * (np.arange(terms) + 0.5) / terms)
        a, b = (np.exp((nodes + 1) / 2 * np.log(most)) for most in (A_MOST, B_MOST))
        # Discrete orthogonality of the Chebyshev polynomials on their nodes.
        to_coefficients = np.cos(np.outer(np.arange(terms), np.arccos(nodes))) * 2 / terms
        to_coefficients[0] /= 2
        tables = [
            to_coefficients @ logit_by_scipy(a[None], b[:, None], p) @ to_coefficients.T
            for p in probabilities
        ]
        self._table = np.concatenate(tables)  # (quantile and term in b, term in a)

    def logits(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Logits of the quantiles; a value does not depend on its neighbours.

        Args:
            a, b: parameters, float64, shape (n,).

        Returns:
            float64, shape (quantile, n).
        """
        out = np.empty((len(self._probabilities), len(a)))
        for start in range(0, len(a), _BLOCK):
            piece = slice(start, start + _BLOCK)
            self._evaluate(a[piece], b[piece], out[:, piece])
        inside = (a >= 1) & (a <= A_MOST) & (b >= 1) & (b <= B_MOST)
        if not inside.all():
            outside = ~inside
            for number, p in enumerate(self._probabilities):
                out[number, outside] = logit_by_scipy(a[outside], b[outside], p)
        return out

    def _evaluate(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        # A matrix product may sum in another order at the edge of its matrices: all have the same shape.
        count, width = len(a), _BLOCK
        t = np.ones((2, width))
        t[0, :count], t[1, :count] = a, b
        np.log(t, out=t)
        t *= np.array([[2 / np.log(A_MOST)], [2 / np.log(B_MOST)]])
        t -= 1
        powers = _chebyshev(t, self._terms)
        by_b = (self._table @ powers[:, 0]).reshape(len(self._probabilities), self._terms, width)
        by_b *= powers[:, 1]
        out[...] = by_b.sum(1)[:, :count]


def logit_by_scipy(a: np.ndarray, b: np.ndarray, p: float) -> np.ndarray:
    """logit of the p quantile of Beta(a, b); both ends without cancellation."""
    return np.log(scipy.special.betaincinv(a, b, p)) - np.log(scipy.special.betaincinv(b, a, 1 - p))


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
