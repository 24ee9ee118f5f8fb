"""The interval of a mixture of Beta distributions: the quantiles of its mean distribution function.

The distribution function of a component, Beta(a, b), is Phi(z). Its z is near r, the signed root of the
deviance at the point q: r^2 = 2 [a log(m / q) + b log((1 - m) / (1 - q))] with m = a / (a + b); see
Barndorff-Nielsen and Cox, Inference and Asymptotics, 6.6. The difference z - r is smooth: a polynomial in
r / sqrt(r^2 + 9), whose coefficients are smooth in (log a, log b) and are interpolated in a table
(`beam_zoo/tables/quantiles.py`). So no step of the search evaluates an incomplete beta function.

The search is Newton's method for the normal score of the mean distribution function, which is nearly linear
in the logit. The first bracket is the range of the components' own quantiles. A step that would leave the
bracket is replaced by its middle.
"""

import math

import numpy as np
import scipy.special
from numba import float64, types

from beam_zoo.runtime.compiler import compiled
from beam_zoo.tables.quantiles import InterpolationTable, inside, logit_by_scipy, nodes

ORDER = 8
_BEND = 9.0
_STEPS = 60
_LAST_STEP, _LAST_BRACKET = 1e-5, 1e-9
"""The search ends with a Newton step, whose error is its square, or with a bracket, shorter than these."""
_LEAST_DENSITY = 0.5
"""The least density, times sqrt(2 pi), at which the table's error moves the quantile little enough."""
_COLUMNS, _SEARCHED = 4096, 1024
_ROOT_TWO_PI = np.sqrt(2 * np.pi)


class MixtureQuantiles:
    """Quantiles of equal mixtures of Beta distributions.

    Args:
        probabilities: which quantiles.
    """

    def __init__(self, probabilities: tuple[float, ...]) -> None:
        self._probabilities = probabilities
        a, b = nodes()
        quantiles = [logit_by_scipy(a, b, p) for p in probabilities]
        peak = a * np.log(a / (a + b)) + b * np.log(b / (a + b)) - scipy.special.betaln(a, b)
        self._table = InterpolationTable(np.stack([*quantiles, peak, *_corrections(a, b)]))

    def quantiles(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Quantiles of the mixture of each column; a column does not depend on the others.

        Args:
            a, b: parameters, float64, shape (component, column).

        Returns:
            float64, shape (quantile, column).
        """
        out = np.empty((len(self._probabilities), a.shape[1]))
        slope = np.empty_like(out)
        for start in range(0, a.shape[1], _COLUMNS):
            piece = slice(start, start + _COLUMNS)
            self._piece(a[:, piece], b[:, piece], out[:, piece], slope[:, piece])
        out = scipy.special.expit(out)
        known = inside(a, b).all(0)
        for number, p in enumerate(self._probabilities):
            # Between two peaks the function is so flat that a small error of it moves the quantile far.
            unsure = ~known | ~(slope[number] > _LEAST_DENSITY * out[number] * (1 - out[number]))
            if unsure.any():
                out[number, unsure] = by_scipy(a[:, unsure], b[:, unsure], p)
        return out

    def _piece(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, slope: np.ndarray) -> None:
        found = self._table.values(a.ravel(), b.ravel()).reshape(-1, *a.shape)
        count = len(self._probabilities)
        for start in range(0, a.shape[1], _SEARCHED):
            some = slice(start, start + _SEARCHED)
            values = found[..., some]
            components = _Components(
                a[:, some], b[:, some], np.exp(values[count]) * _ROOT_TWO_PI, values[count + 1 :]
            )
            for number, p in enumerate(self._probabilities):
                _search(components, values[number], p, out[number, some], slope[number, some])


class _Components:
    """The components' distribution functions, of the columns that are still searched.

    Args:
        a, b: shape (component, column).
        peak: sqrt(2 pi) times the density of the logit at its deviance's zero.
        corrections: coefficients of z - r, shape (order, component, column).
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, peak: np.ndarray, corrections: np.ndarray) -> None:
        a, b = (np.ascontiguousarray(each, np.float64) for each in (a, b))
        self._a, self._b = a, b
        self._peak, self._corrections = peak, np.ascontiguousarray(corrections)
        total = a + b
        self._zero = np.log(a / b)
        self._deviance = 2 * (a * np.log(a / total) + b * np.log(b / total))

    def only(self, columns: np.ndarray) -> "_Components":
        """Some columns."""
        return _Components(
            self._a[:, columns], self._b[:, columns], self._peak[:, columns], self._corrections[..., columns]
        )

    def scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z of every component at the logit x of its column, and sqrt(2 pi) times its density there."""
        log_rest = -np.logaddexp(0, x)  # log(1 - q); log q is x more
        z, squared = np.empty_like(self._a), np.empty_like(self._a)
        given = self._a, self._b, self._zero, self._deviance, self._corrections
        _scores(*given, np.ascontiguousarray(x), log_rest, z, squared)
        return z, self._peak * np.exp(-squared / 2)


_LINE, _ROWS, _STACK = (types.Array(float64, dimensions, "C", readonly=True) for dimensions in (1, 2, 3))
_MADE = types.Array(float64, 2, "C")


@compiled(types.void, _ROWS, _ROWS, _ROWS, _ROWS, _STACK, _LINE, _LINE, _MADE, _MADE)
def _scores(
    a: np.ndarray,
    b: np.ndarray,
    zero: np.ndarray,
    deviance: np.ndarray,
    corrections: np.ndarray,
    x: np.ndarray,
    log_rest: np.ndarray,
    z: np.ndarray,
    squared: np.ndarray,
) -> None:
    """z of every component at the logit x of its column, and r^2."""
    for component in range(a.shape[0]):
        for k in range(x.shape[0]):
            change = a[component, k] * x[k] + (a[component, k] + b[component, k]) * log_rest[k]
            square = max(deviance[component, k] - 2 * change, 0.0)
            root = math.sqrt(square)
            r = root if x[k] >= zero[component, k] else -root
            bent = r / math.sqrt(square + _BEND)
            bending = corrections[ORDER, component, k] * bent
            for power in range(ORDER - 1, 0, -1):
                bending = (bending + corrections[power, component, k]) * bent
            z[component, k], squared[component, k] = bending + corrections[0, component, k] + r, square


def _search(
    components: _Components, logits: np.ndarray, p: float, out: np.ndarray, slope: np.ndarray
) -> None:
    """Find the logit where the mean of the components' functions is p; also sqrt(2 pi) times its slope there.

    Both go into arrays of shape (column,).
    """
    low, high, x = logits.min(0), logits.max(0), _mean(logits)
    wanted = scipy.special.ndtri(p)
    left, found = np.arange(len(x)), np.zeros(len(x), bool)
    for _ in range(_STEPS):
        z, density = components.scores(x)
        mean = _mean(scipy.special.ndtr(z))
        score = scipy.special.ndtri(np.clip(mean, 1e-300, 1 - 1e-16))
        density = _mean(density)
        low, high = np.where(score < wanted, x, low), np.where(score < wanted, high, x)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = x - (score - wanted) / (density * np.exp(score * score / 2))
        by_newton = (step >= low) & (step <= high)
        x, before = np.where(by_newton, step, (low + high) / 2), x
        close = (by_newton & (np.abs(x - before) < _LAST_STEP)) | (high - low < _LAST_BRACKET)
        # What is found first counts: how often the search goes on depends on the neighbours.
        new = close & ~found
        out[left[new]], slope[left[new]] = x[new], density[new]
        found |= new
        number = np.count_nonzero(found)
        if number == len(x):
            return
        if 2 * number >= len(x):  # else it costs more to leave them out than to go on with them
            keep = ~found
            components, left, found = components.only(keep), left[keep], found[keep]
            x, low, high = x[keep], low[keep], high[keep]
    out[left[~found]], slope[left[~found]] = x[~found], 0


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean of the rows, added up one after the other: numpy's order depends on the number of columns."""
    total = rows[0].copy()
    for row in rows[1:]:
        total += row
    return total / len(rows)


def _corrections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Coefficients of z - r as a polynomial in r / sqrt(r^2 + 9), by least squares.

    Returns:
        Shape (order, *shape of a and b).
    """
    at = 5.4 * np.cos(np.pi * (np.arange(2 * ORDER + 8) + 0.5) / (2 * ORDER + 8))
    r = at[:, None, None]
    total = a + b
    peak = 2 * (a * np.log(a / total) + b * np.log(b / total))
    low, high = np.full(np.broadcast_shapes(r.shape, total.shape), -80.0), np.full(1, 80.0)
    high = np.broadcast_to(high, low.shape)
    for _ in range(70):  # where the deviance's root is r
        x = (low + high) / 2
        squared = np.maximum(peak - 2 * (a * x - total * np.logaddexp(0, x)), 0)
        below = np.copysign(np.sqrt(squared), x - np.log(a / b)) < r
        low, high = np.where(below, x, low), np.where(below, high, x)
    lower = scipy.special.betainc(a, b, scipy.special.expit(x))
    upper = scipy.special.betainc(b, a, scipy.special.expit(-x))
    z = np.where(lower < 0.5, scipy.special.ndtri(lower), -scipy.special.ndtri(upper))
    weight = np.exp(-0.2 * at**2)  # tails matter less to a mean of functions
    powers = np.vander(at / np.sqrt(at**2 + _BEND), ORDER + 1, increasing=True)
    wanted = ((z - r) * weight[:, None, None]).reshape(len(at), -1)
    fit = np.linalg.lstsq(powers * weight[:, None], wanted, rcond=None)[0]
    return fit.reshape(-1, *total.shape)


def by_scipy(a: np.ndarray, b: np.ndarray, p: float) -> np.ndarray:
    """The same root by bisection on scipy's functions, slowly.

    Args:
        a, b: parameters, shape (component, column).
        p: the probability.

    Returns:
        The quantile of each column.
    """
    each = logit_by_scipy(a, b, p)
    low, high = each.min(0), each.max(0)
    for _ in range(60):
        x = (low + high) / 2
        below = scipy.special.betainc(a, b, scipy.special.expit(x)).mean(0) < p
        low, high = np.where(below, x, low), np.where(below, high, x)
    return scipy.special.expit((low + high) / 2)
