"""What the tables are of, and which numbers they hold in which columns."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import pyarrow as pa

from beam_zoo.members import schema as schemas
from beam_zoo.members.member import Member
from beam_zoo.tables.statistics import DecisionTree, value_statistics


class StatisticsPlan(Protocol):
    """What statistics are computed of."""

    @property
    def kind(self) -> str: ...
    @property
    def members(self) -> tuple[Member, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def interval(self) -> str: ...


class TablePlan(StatisticsPlan, Protocol):
    """What the tables need to know: of one run (a Plan) or of several."""

    @property
    def command(self) -> str: ...
    @property
    def tables_fingerprint(self) -> str: ...
    def table_rows(self, part: int) -> range:
        """Rows of a table part."""

    def read_table_rows(self, output: str, part: int) -> pa.Table:
        """`id_str`, `file_loc` and the carried columns of a table part's galaxies, in order."""


class TableColumns:
    """The number columns of the tables, and what is computed for them.

    Args:
        plan: what they are computed of.

    Attributes:
        friendly: names of the friendly table's number columns.
        advanced: names of the advanced table's number columns.
    """

    def __init__(self, plan: StatisticsPlan) -> None:
        self._tree: DecisionTree | None = None
        if plan.kind == "tree":
            schema = plan.members[0].schema
            assert schema is not None
            self._tree = DecisionTree(
                schemas.make_schema(schema["question_answer_pairs"], schema["dependencies"]), plan.interval
            )
        self.friendly, self.advanced = column_names(plan.kind, plan.outputs)

    def compute(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of both tables.

        Args:
            samples: shape (galaxy, sample, output).

        Returns:
            Friendly, shape (galaxy, column), and advanced, shape (galaxy, column); float32.
        """
        if self._tree is not None:
            tree = self._tree.statistics(samples)
            columns = (tree.fraction, tree.lower, tree.upper, tree.asked)
            return tree.masked_fraction, _side_by_side(columns)
        values = value_statistics(samples)
        return values.mean, _side_by_side((values.mean, values.std, values.lower, values.upper))


def column_names(kind: str, outputs: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names of the number columns of the friendly and of the advanced table."""
    if kind == "tree":
        endings: tuple[str, ...] = ("_fraction", "_90pc-lower", "_90pc-upper", "_proportion-asked")
    else:
        stem = "_probability" if kind == "classifier" else ""
        endings = (stem, f"{stem}_std", f"{stem}_90pc-lower", f"{stem}_90pc-upper")
    names = list(outputs)
    return [name + endings[0] for name in names], [name + ending for name in names for ending in endings]


def _side_by_side(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """One array of (galaxy, output) arrays: the columns of an output beside each other."""
    return np.stack(columns, axis=-1).reshape(len(columns[0]), -1)
