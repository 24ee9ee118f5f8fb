"""The audit of the tables' numbers: those of the samples, and what fractions, bounds and masks must be."""

import numpy as np

from beam_zoo.audit.audit import Findings
from beam_zoo.storage.layout import ADVANCED, FRIENDLY
from beam_zoo.tables.statistics import ASKED_AT_LEAST
from beam_zoo.tables.tables import Statistics, TablePlan

CLOSE = 1e-6
SUM = 1e-5


def questions(plan: TablePlan) -> list[tuple[slice, str | None]]:
    """Of a tree: each question's answers, as columns of its samples, and the answer that it is asked after."""
    schema = plan.members[0].schema
    assert schema is not None
    found, start = [], 0
    for question, answers in schema["question_answer_pairs"].items():
        found.append((slice(start, start + len(answers)), schema["dependencies"][question]))
        start += len(answers)
    return found


def plain_numbers(plan: TablePlan, samples: np.ndarray) -> np.ndarray:
    """Expected fractions, or mean values, by their definition and by none of the code that made the tables.

    Args:
        plan: what the tables are of.
        samples: float32, shape (galaxy, sample, output).

    Returns:
        float64, shape (galaxy, output).
    """
    values = samples.astype(np.float64)
    if plan.kind == "tree":
        for answers, _ in questions(plan):
            values[..., answers] /= values[..., answers].sum(axis=-1, keepdims=True)
    return values.sum(axis=1) / samples.shape[1]


class NumberChecks:
    """Checks of the numbers of both tables.

    Args:
        plan: what the tables are of.
        statistics: the tables' columns.
        findings: takes what is wrong.
    """

    def __init__(self, plan: TablePlan, statistics: Statistics, findings: Findings) -> None:
        self._plan, self._findings = plan, findings
        self._columns = {FRIENDLY: statistics.friendly, ADVANCED: statistics.advanced}

    def table(
        self,
        folder: str,
        file: str,
        found: np.ma.MaskedArray,
        ids: list[str],
        right: dict[str, np.ndarray],
        plain: np.ndarray,
    ) -> None:
        """One table against the samples, and against what its numbers mean.

        Args:
            folder: `friendly` or `advanced`.
            file: the table's part.
            found: its numbers, float32, shape (galaxy, column); masked where a galaxy has no row.
            ids: of the galaxies.
            right: table -> the numbers that the samples give, of the same shape.
            plain: what `plain_numbers` gives of them.
        """
        there, columns = ~np.ma.getmaskarray(found), self._columns[folder]
        values, outputs = np.asarray(found.filled(0), np.float64), self._plan.outputs
        expected = right[folder].astype(np.float64)
        tree = self._plan.kind == "tree"
        wrong: np.ndarray = there & ~_close(values, expected)
        # In float noise of the mask's edge, on another machine, a fraction may fall on either side.
        if tree and folder == FRIENDLY:
            numbers = right[ADVANCED].astype(np.float64).reshape(len(ids), len(outputs), 4)
            fraction, asked = numbers[..., 0], numbers[..., 3]
            edge = np.abs(asked - ASKED_AT_LEAST) <= CLOSE
            wrong &= ~(edge & (np.isnan(values) | _close(values, fraction)))
        self._findings.cells(file, wrong, ids, columns, values, expected)
        step = 1 if folder == FRIENDLY else 4
        main, names = values[:, ::step], columns[::step]
        is_there = there[:, ::step]
        # Where a table agrees with the first computation and not with this one, that computation is wrong.
        masked = np.isnan(main) if tree and folder == FRIENDLY else np.zeros_like(is_there)
        by_hand = is_there & ~masked & ~_close(main, plain) & ~wrong[:, ::step]
        self._findings.cells(file, by_hand, ids, names, main, plain)
        if self._plan.kind != "regressor":
            self._sums(file, main, is_there, ids)
            self._inside(file, main, is_there, ids, names)
        if folder == ADVANCED:
            self._bounds(file, values, there, ids)

    def _sums(self, file: str, values: np.ndarray, there: np.ndarray, ids: list[str]) -> None:
        """Fractions of a question, or probabilities of all classes, sum to 1."""
        every: list[tuple[slice, str | None]] = [(slice(None), None)]
        groups = questions(self._plan) if self._plan.kind == "tree" else every
        for answers, _ in groups:
            sums = values[:, answers].sum(axis=1)[:, None]
            bad = there[:, answers].all(axis=1, keepdims=True) & (np.abs(sums - 1) > SUM)
            name = f"the sum of {', '.join(self._plan.outputs[answers])}"
            self._findings.cells(file, bad, ids, [name], sums, "and must be 1")

    def _inside(
        self, file: str, values: np.ndarray, there: np.ndarray, ids: list[str], names: list[str]
    ) -> None:
        bad = there & ((values < 0) | (values > 1))
        self._findings.cells(file, bad, ids, names, values, "and must be from 0 to 1")

    def _bounds(self, file: str, values: np.ndarray, there: np.ndarray, ids: list[str]) -> None:
        """The advanced table: nothing is NaN in it that must not be, and bounds are bounds."""
        outputs, columns = self._plan.outputs, self._columns[ADVANCED]
        by_output = values.reshape(len(ids), len(outputs), 4)
        is_there = there.reshape(by_output.shape)
        names = [columns[i::4] for i in range(4)]
        tree = self._plan.kind == "tree"
        # Of a single sample there is no spread; of a tree, every number is known.
        known = range(4) if tree else range(1)
        for i in known:
            bad = is_there[..., i] & np.isnan(by_output[..., i])
            self._findings.cells(file, bad, ids, names[i], by_output[..., i], "and must be a number")
        low, high = (1, 2) if tree else (2, 3)
        lower, upper = by_output[..., low], by_output[..., high]
        bad = is_there[..., low] & (lower > upper)
        self._findings.cells(file, bad, ids, names[low], lower, "and must not be above the upper bound")
        if self._plan.kind != "regressor":
            for i in (low, high):
                self._inside(file, by_output[..., i], is_there[..., i], ids, names[i])
        if tree:
            asked = self._asked(by_output[..., 0])
            bad = is_there[..., 3] & ~_close(by_output[..., 3], asked) & ~np.isnan(asked)
            self._findings.cells(file, bad, ids, names[3], by_output[..., 3], asked)

    def _asked(self, fraction: np.ndarray) -> np.ndarray:
        """Proportion asked, of the table's own fractions: the product along the way to a question."""
        outputs = list(self._plan.outputs)
        tree = questions(self._plan)
        asked = np.empty_like(fraction)
        for answers, after in tree:
            product = np.ones(len(fraction))
            while after is not None:
                column = outputs.index(after)
                product = product * fraction[:, column]
                after = next(before for those, before in tree if those.start <= column < those.stop)
            asked[:, answers] = product[:, None]
        return asked

    def both(
        self, file: str, friendly: np.ma.MaskedArray, advanced: np.ma.MaskedArray, ids: list[str]
    ) -> None:
        """The friendly table has just the first numbers of the advanced one, masked where few are asked.

        Args:
            file: the friendly table's part.
            friendly, advanced: numbers, float32, shape (galaxy, column); masked where a galaxy has no row.
            ids: of the galaxies.
        """
        by_output = advanced.reshape(len(ids), len(self._plan.outputs), 4)
        there = ~(np.ma.getmaskarray(friendly) | np.ma.getmaskarray(by_output)[..., 0])
        right = np.asarray(by_output[..., 0].filled(0), np.float64)
        if self._plan.kind == "tree":
            asked = np.asarray(by_output[..., 3].filled(0))
            right = np.where(asked >= ASKED_AT_LEAST, right, np.nan)
        values = np.asarray(friendly.filled(0), np.float64)
        bad = there & ~((values == right) | (np.isnan(values) & np.isnan(right)))
        if bad.any():
            columns = [f"{name} (held against advanced)" for name in self._columns[FRIENDLY]]
            self._findings.cells(file, bad, ids, columns, values, right)


def _close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal but for the noise of float32; NaN equals NaN."""
    near = np.abs(a - b) <= CLOSE * np.maximum(1, np.abs(b))
    return near | (np.isnan(a) & np.isnan(b)) | (a == b)
