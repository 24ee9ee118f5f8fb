"""Quantiles of many Beta distributions at once, by interpolation.

The logit of a quantile of Beta(a, b) is smooth in (log a, log b). A Chebyshev interpolant with a few terms in
each reproduces it for all concentrations that Zoobot can give. The coefficients are computed with scipy when
a table is first needed; evaluating it takes 256 products and sums, in compiled code. Outside of that domain
scipy is called. Interpolation at Chebyshev nodes: Trefethen, Approximation Theory and Approximation Practice,
chapters 3-4.
"""

import numpy as np
import scipy.special
from numba import float64, types

from beam_zoo.runtime.compiler import compiled

A_LARGEST, B_LARGEST = 101.0, 606.0
"""Zoobot's concentrations lie in [1, 101]; the others of a question with up to 7 answers sum to [1, 606]."""
TERMS = 16
"""Terms in each direction: the quantiles are then within 3e-8 of scipy's everywhere in the domain."""
_AT_ONCE = 4096
"""Points that are interpolated together, a multiple of `_LANES`."""
_LANES = 64
"""Points that go through the compiled loops together: their polynomials stay in the first-level cache."""
_ROWS, _TABLES = types.Array(float64, 2, "C"), types.Array(float64, 3, "C", readonly=True)


class InterpolationTable:
    """Smooth functions of (a, b) over the domain.

    Args:
        functions: their values at `nodes()`, shape (function, b, a).
    """

    def __init__(self, functions: np.ndarray) -> None:
        # Discrete orthogonality of the Chebyshev polynomials on their nodes.
        angles = np.arccos(_chebyshev_nodes())
        to_coefficients = np.cos(np.outer(np.arange(TERMS), angles)) * 2 / TERMS
        to_coefficients[0] /= 2
        self._coefficients = to_coefficients @ functions @ to_coefficients.T

    def values(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The functions' values, undefined outside of the domain; no value depends on the other points.

        Args:
            a, b: parameters, float64, shape (n,).

        Returns:
            float64, shape (function, n).
        """
        out = np.empty((len(self._coefficients), len(a)))
        t, found = np.empty((2, _AT_ONCE)), np.empty((len(out), _AT_ONCE))
        for start in range(0, len(a), _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
            count = len(a[piece])
            t[0, :count], t[1, :count], t[:, count:] = a[piece], b[piece], 1
            np.log(t, out=t)
            t *= [[2 / np.log(A_LARGEST)], [2 / np.log(B_LARGEST)]]
            t -= 1
            _interpolate(self._coefficients, t, found)
            out[:, piece] = found[:, :count]
        return out


@compiled(types.void, _TABLES, _ROWS, _ROWS, fastmath={"contract"})
def _interpolate(coefficients: np.ndarray, t: np.ndarray, out: np.ndarray) -> None:
    """Sums of coefficients[:, j, i] T_i(t[0]) T_j(t[1]), into `out`, shape (function, n).

    n is a multiple of `_LANES`.
    """
    in_a, in_b = np.empty((TERMS, _LANES)), np.empty((TERMS, _LANES))
    total = np.empty(_LANES)
    for start in range(0, t.shape[1], _LANES):
        for k in range(_LANES):
            in_a[0, k] = in_b[0, k] = 1.0
            in_a[1, k], in_b[1, k] = t[0, start + k], t[1, start + k]
        for i in range(2, TERMS):
            for k in range(_LANES):
                in_a[i, k] = 2 * in_a[1, k] * in_a[i - 1, k] - in_a[i - 2, k]
                in_b[i, k] = 2 * in_b[1, k] * in_b[i - 1, k] - in_b[i - 2, k]
        for function in range(coefficients.shape[0]):
            for k in range(_LANES):
                total[k] = 0.0
            for j in range(TERMS):
                for k in range(_LANES):
                    row = 0.0
                    # The compiler unrolls this loop and vectorises that over k, with registers only.
                    for i in range(TERMS):
                        row += coefficients[function, j, i] * in_a[i, k]
                    total[k] += row * in_b[j, k]
            for k in range(_LANES):
                out[function, start + k] = total[k]


def nodes() -> tuple[np.ndarray, np.ndarray]:
    """The points where a table needs its functions: a of shape (1, TERMS), b of shape (TERMS, 1)."""
    at = (_chebyshev_nodes() + 1) / 2
    return A_LARGEST ** at[None], B_LARGEST ** at[:, None]


def inside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether parameters are in the domain of the tables."""
    return (a >= 1) & (a <= A_LARGEST) & (b >= 1) & (b <= B_LARGEST)


class BetaQuantiles:
    """Quantiles of Beta(a, b), as logits.

    Args:
        probabilities: which quantiles.
    """

    def __init__(self, probabilities: tuple[float, ...]) -> None:
        self._probabilities = probabilities
        self._table = InterpolationTable(np.stack([logit_by_scipy(*nodes(), p) for p in probabilities]))

    def logits(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Logits of the quantiles; a value does not depend on the other points.

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
    """Logit of the p quantile of Beta(a, b), without cancellation near 0 and 1."""
    return np.log(scipy.special.betaincinv(a, b, p)) - np.log(scipy.special.betaincinv(b, a, 1 - p))


def _chebyshev_nodes() -> np.ndarray:
    return np.cos(np.pi * (np.arange(TERMS) + 0.5) / TERMS)
