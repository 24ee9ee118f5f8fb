"""What the tables must hold, computed from the stored samples by the definitions.

For a decision tree, a sample is the Dirichlet concentrations of each question's answers. An answer's fraction
then has the distribution Beta(a, b): a is its concentration, b the sum of the question's others.

- fraction: the mean over the samples of a / (a + b);
- proportion asked: the product of the fractions of the answers that lead to the question;
- bounds: the medians over the samples of the 5% and 95% quantiles, or the quantiles of the mean distribution.

For a classifier or a regressor: mean, standard deviation, and the 5% and 95% quantiles of the samples.

All this is computed here by NumPy and SciPy, except for most bounds of a tree. By definition they take about
a microsecond for each sample, answer and bound: some twenty times as long as all the rest of the audit. They
are computed by definition for `GALAXIES_BY_DEFINITION` galaxies of a table part, and by `tables` for all.
"""

import functools

import numpy as np
import pyarrow as pa
import scipy.special

from beam_zoo.catalogue.read import ID
from beam_zoo.images.failure import Failure
from beam_zoo.plan.plan import MIXTURE
from beam_zoo.tables.columns import TableColumns, TablePlan
from beam_zoo.tables.statistics import INTERVAL

GALAXIES_AT_ONCE = 1024
GALAXIES_BY_DEFINITION = 32
BOUND_TOLERANCE = 1e-5
"""Between a bound by definition and one by the code that makes the tables."""
BISECTIONS = 24


class ExpectedTablePart:
    """What a table part must hold, by the plan and the stored parts.

    Args:
        plan: what the tables are of.
        rows: `id_str`, `file_loc` and the carried columns of its galaxies, in the order of the plan.

    Attributes:
        plan, rows: as given.
        failures: row of a galaxy without samples -> its failures in the parts, one of which the table has.
        unknown: rows of galaxies of which damaged parts leave unknown what became of them.
    """

    def __init__(self, plan: TablePlan, rows: pa.Table) -> None:
        self.plan, self.rows = plan, rows
        self.failures: dict[int, list[Failure]] = {}
        self.unknown: set[int] = set()
        self._predicted = [np.zeros(0, np.int64)]
        self._numbers = [np.zeros((0, len(plan.outputs), 4))]

    @functools.cached_property
    def definitions(self) -> "Definitions":
        """Those of the plan; there are none for `represent`."""
        return Definitions(self.plan)

    def add(self, rows: np.ndarray, samples: np.ndarray | None) -> None:
        """Add galaxies by their rows; samples are None if no table has numbers of them."""
        self._predicted.append(rows)
        if samples is not None:
            self._numbers.append(self.definitions.numbers(rows, samples))

    @property
    def predicted(self) -> np.ndarray:
        """Rows of the galaxies that have samples, ascending, int64, shape (galaxy,)."""
        return np.sort(np.concatenate(self._predicted))

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the advanced table, float64, shape (galaxy, output, statistic), of `predicted`."""
        order = np.argsort(np.concatenate(self._predicted), kind="stable")
        return np.concatenate(self._numbers)[order]

    def ids(self, rows: np.ndarray) -> list[str]:
        """Ids of the galaxies in these rows."""
        return self.rows.column(ID).take(pa.array(rows)).to_pylist()


class Definitions:
    """Computes the numbers of the advanced table.

    Args:
        plan: what the tables are of.

    Attributes:
        questions: answers, of which one is right, as a slice of the outputs; the answer that they are asked
            after: the questions of a tree, or all classes of a classifier.
    """

    def __init__(self, plan: TablePlan) -> None:
        self._plan, self._columns = plan, TableColumns(plan)
        self._stride = max(1, len(plan.table_rows(0)) // GALAXIES_BY_DEFINITION)
        self.questions: list[tuple[slice, str | None]] = []
        if plan.kind == "classifier":
            self.questions.append((slice(0, len(plan.outputs)), None))
        schema = (plan.members[0].schema if plan.kind == "tree" else None) or {"question_answer_pairs": {}}
        end = 0
        for question, answers in schema["question_answer_pairs"].items():
            start, end = end, end + len(answers)
            self.questions.append((slice(start, end), schema["dependencies"][question]))

    def numbers(self, rows: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """The numbers of the advanced table.

        Args:
            rows: of the galaxies, in the table part, int64, shape (galaxy,).
            samples: float32, shape (galaxy, sample, output).

        Returns:
            float64, shape (galaxy, output, statistic): of a tree fraction, lower bound, upper bound and
            proportion asked; else mean, standard deviation, lower bound and upper bound.
        """
        out = np.empty((len(samples), len(self._plan.outputs), 4))
        for start in range(0, len(samples), GALAXIES_AT_ONCE):
            some = slice(start, start + GALAXIES_AT_ONCE)
            with np.errstate(all="ignore"):  # damaged samples are findings of their own
                if self._plan.kind == "tree":
                    self._tree(rows[some], samples[some], out[some])
                else:
                    _values(samples[some].astype(np.float64), out[some])
        return out

    def _tree(self, rows: np.ndarray, samples: np.ndarray, out: np.ndarray) -> None:
        a, total = samples.astype(np.float64), np.empty(samples.shape)
        for answers, _ in self.questions:
            total[..., answers] = a[..., answers].sum(axis=-1, keepdims=True)
        out[..., 0] = (a / total).mean(axis=1)
        out[..., 3] = self._asked(out[..., 0])
        _, advanced = self._columns.compute(samples)
        out[..., 1:3] = advanced.reshape(out.shape)[..., 1:3]
        chosen = rows % self._stride == 0
        by_definition = mixture_bounds if self._plan.interval == MIXTURE else median_bounds
        bounds = by_definition(a[chosen], (total - a)[chosen])
        near = np.abs(out[chosen, :, 1:3] - bounds) <= BOUND_TOLERANCE
        out[chosen, :, 1:3] = np.where(near, out[chosen, :, 1:3], bounds)

    def _asked(self, fraction: np.ndarray) -> np.ndarray:
        asked = np.ones_like(fraction)
        for answers, after in self.questions:
            while after is not None:
                column = self._plan.outputs.index(after)
                asked[:, answers] *= fraction[:, column, None]
                after = next(a for those, a in self.questions if those.start <= column < those.stop)
        return asked


def median_bounds(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Medians over the samples of the quantiles of Beta(a, b).

    Args:
        a, b: parameters, float64, shape (galaxy, sample, output).

    Returns:
        float64, shape (galaxy, output, bound).
    """
    return np.stack([np.median(scipy.special.betaincinv(a, b, p), axis=1) for p in INTERVAL], axis=-1)


def mixture_bounds(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Quantiles of the mean over the samples of Beta(a, b); arguments and result: see `median_bounds`."""
    bounds = []
    for p in INTERVAL:
        low, high = np.zeros_like(a[:, :1]), np.ones_like(a[:, :1])
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = scipy.special.betainc(a, b, middle).mean(axis=1, keepdims=True) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        bounds.append(((low + high) / 2)[:, 0])
    return np.stack(bounds, axis=-1)


def _values(samples: np.ndarray, out: np.ndarray) -> None:
    """Statistics of the samples of a classifier or a regressor, float64, shape (galaxy, sample, output)."""
    bounds = np.quantile(samples, INTERVAL, axis=1)
    out[:] = np.stack([samples.mean(axis=1), samples.std(axis=1), *bounds], axis=-1)
    out[samples.min(axis=1) == samples.max(axis=1), 1:] = np.nan  # a single value has no spread
