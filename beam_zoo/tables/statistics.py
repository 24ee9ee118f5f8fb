"""Vote fractions, their 90% intervals and the proportion asked, from an ensemble's samples.

The numbers are those of `zoobot.shared.stats`, computed for many galaxies at once in float64. A sample of a
tree gives one Dirichlet distribution per question. An answer's own distribution is then Beta(a, b): a is the
answer's concentration, b the sum of the question's others (the aggregation property of the Dirichlet).
"""

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
import scipy.special

from beam_zoo.plan.plan import MEDIAN, MIXTURE
from beam_zoo.tables.medians import median

if TYPE_CHECKING:
    from zoobot.shared.schemas import Schema

    from beam_zoo.tables.mixture import MixtureQuantiles
    from beam_zoo.tables.quantiles import BetaQuantiles

INTERVAL = (0.05, 0.95)
GALAXIES_AT_ONCE = 512
"""All steps are done for so many galaxies before the next ones: their samples stay in the cache."""
ASKED_AT_LEAST = 0.5
"""The friendly table masks answers to questions that fewer than half of the volunteers would be asked."""


@dataclasses.dataclass(frozen=True)
class TreeStatistics:
    """Statistics of a decision tree: float32, each of shape (galaxy, answer).

    Attributes:
        fraction: expected vote fraction, the mean over the samples.
        lower, upper: bounds of the 90% interval: the medians over the samples of the Beta quantiles, or the
            quantiles of the mixture.
        asked: proportion of volunteers asked the answer's question.
    """

    fraction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    asked: np.ndarray

    @property
    def masked_fraction(self) -> np.ndarray:
        """`fraction`, NaN where the proportion asked is under a half."""
        return np.where(self.asked >= ASKED_AT_LEAST, self.fraction, np.float32(np.nan))


class DecisionTree:
    """The questions of a schema as slices of its answers.

    Args:
        schema: a Schema of zoobot.
        interval: how the 90% interval is computed: `median`, the medians of the samples' bounds, as zoobot
            does, or `mixture`, the interval of the mean of the samples' distributions.
    """

    def __init__(self, schema: "Schema", interval: str = MEDIAN) -> None:
        self._mixture = _mixture() if interval == MIXTURE else None
        self._slices = [slice(q.start_index, q.end_index + 1) for q in schema.questions]
        names = [q.text for q in schema.questions]
        self._after = [
            None if q.asked_after is None else (q.asked_after.index, names.index(q.asked_after.question.text))
            for q in schema.questions
        ]

    def statistics(self, concentrations: np.ndarray) -> TreeStatistics:
        """All statistics.

        Args:
            concentrations: shape (galaxy, sample, answer), a sample being one pass of one member.

        Returns:
            float32 arrays of shape (galaxy, answer).
        """
        galaxies, _, answers = concentrations.shape
        tables = TreeStatistics(*(np.empty((galaxies, answers), np.float32) for _ in range(4)))
        for start in range(0, galaxies, GALAXIES_AT_ONCE):
            some = slice(start, start + GALAXIES_AT_ONCE)
            fraction, lower, upper = self._fractions(concentrations[some])
            tables.fraction[some], tables.lower[some], tables.upper[some] = fraction, lower, upper
            # `masked_fraction` compares the float32 numbers that are stored: both tables agree on the mask.
            tables.asked[some] = self._asked(fraction)
        return tables

    def _fractions(self, concentrations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fractions and the bounds of their intervals, float64 of shape (galaxy, answer)."""
        # Galaxies are the last axis, so that each operation runs over contiguous numbers. There are always as
        # many: numpy adds few numbers in another order, and a galaxy's numbers must not depend on its batch.
        galaxies, samples, answers = concentrations.shape
        a = np.ones((answers, samples, GALAXIES_AT_ONCE))
        a[..., :galaxies] = concentrations.transpose(2, 1, 0)
        b, fraction = np.empty_like(a), np.empty_like(a)
        for question in self._slices:
            total = a[question].sum(0)
            np.subtract(total, a[question], out=b[question])
            np.divide(a[question], total, out=fraction[question])
        if self._mixture is None:
            logits = _quantiles().logits(a.ravel(), b.ravel()).reshape(len(INTERVAL), *a.shape)
            # The logit is monotonic: the median is found among logits; two middle quantiles are averaged.
            lower, upper = scipy.special.expit(median(logits)).mean(0)
        else:
            by_sample = (each.transpose(1, 0, 2).reshape(samples, -1) for each in (a, b))
            lower, upper = self._mixture.quantiles(*by_sample).reshape(len(INTERVAL), answers, -1)
        return fraction.mean(1).T[:galaxies], lower.T[:galaxies], upper.T[:galaxies]

    def _asked(self, fraction: np.ndarray) -> np.ndarray:
        """Proportion asked: the product of the fractions of the answers that lead to a question."""
        by_question: dict[int, np.ndarray] = {}

        def asked(question: int) -> np.ndarray:
            if question not in by_question:
                after = self._after[question]
                one = np.ones(len(fraction))
                by_question[question] = one if after is None else fraction[:, after[0]] * asked(after[1])
            return by_question[question]

        out = np.empty_like(fraction)
        for number, question in enumerate(self._slices):
            out[:, question] = asked(number)[:, None]
        return out


# Imported when needed: numba takes a while, and commands that build no tables do not use it.


@functools.cache
def _quantiles() -> "BetaQuantiles":
    from beam_zoo.tables.quantiles import BetaQuantiles

    return BetaQuantiles(INTERVAL)


@functools.cache
def _mixture() -> "MixtureQuantiles":
    from beam_zoo.tables.mixture import MixtureQuantiles

    return MixtureQuantiles(INTERVAL)


@dataclasses.dataclass(frozen=True)
class ValueStatistics:
    """Statistics of a classifier's or a regressor's samples: float32, each of shape (galaxy, output).

    Attributes:
        mean: over the samples.
        std: population standard deviation of the samples.
        lower, upper: their 5th and 95th percentiles, linearly interpolated.

    All but the mean are NaN where all samples are equal.
    """

    mean: np.ndarray
    std: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def value_statistics(samples: np.ndarray) -> ValueStatistics:
    """Statistics of a classifier's or a regressor's samples.

    Args:
        samples: shape (galaxy, sample, output).
    """
    values = samples.astype(np.float64)
    one_value = (values == values[:, :1]).all(1)
    # numpy's default method of a percentile is the linear one.
    lower, upper = np.percentile(values, [100 * p for p in INTERVAL], axis=1)
    spread = [np.where(one_value, np.nan, x) for x in (values.std(1), lower, upper)]
    return ValueStatistics(*(x.astype(np.float32) for x in (values.mean(1), *spread)))
