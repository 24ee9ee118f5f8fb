"""Lines about what is wrong: each names a file, and their number is bounded."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import numpy as np

from beam_zoo.errors import StorageFull, UserError, one_line

LINES = 20
"""Lines of an element; what else is wrong there is counted."""
LINES_OF_A_KIND = 3
"""Lines about the same kind of damage in the same file."""


class Findings:
    """Collects lines, and counts those that are too many.

    Args:
        folder: that the files are in, where it is not the output itself.

    Attributes:
        lines: the lines.
        more: number of lines that were left out.
    """

    def __init__(self, folder: str = "") -> None:
        self.lines: list[str] = []
        self.more = 0
        self._folder = folder

    def add(self, file: str, text: str) -> None:
        """Add a line: what is wrong with the file of this path below the folder."""
        if len(self.lines) < LINES:
            self.lines.append(one_line(f"{os.path.join(self._folder, file)}: {text}", 600))
        else:
            self.more += 1

    def some(self, file: str, texts: Iterable[str], others: int = 0) -> None:
        """Add a few lines about the same kind of damage, and one with the number of the others."""
        for number, text in enumerate(texts):
            if number < LINES_OF_A_KIND:
                self.add(file, text)
            else:
                others += 1
        if others > 0:
            self.add(file, f"... and {others:,} more like this")

    def numbers(
        self,
        file: str,
        wrong: np.ndarray,
        ids: list[str],
        columns: list[str],
        values: np.ndarray,
        should: str | np.ndarray,
    ) -> None:
        """Add a few lines about wrong numbers.

        Args:
            file: path below the folder.
            wrong: which numbers are wrong, bool, shape (galaxy, column).
            ids: of the galaxies.
            columns: names of the columns.
            values: the numbers, shape (galaxy, column).
            should: what the numbers should be: a text, or an array of the same shape.
        """
        where, texts = np.argwhere(wrong), []
        for row, column in where[:LINES_OF_A_KIND].tolist():
            right = should if isinstance(should, str) else f"and should be {should[row, column]:.7g}"
            texts.append(f"galaxy {ids[row]!r}: {columns[column]} is {values[row, column]:.7g} {right}")
        self.some(file, texts, len(where) - len(texts))

    @contextlib.contextmanager
    def unreadable(self, file: str, text: str = "cannot be read") -> Iterator[None]:
        """Add a line, with this text and the reason, where the block fails: damage takes every form."""
        try:
            yield
        except StorageFull:
            raise
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            self.add(file, f"{text} ({kind}{one_line(error, 300)})")

    def all(self, place: str) -> list[str]:
        """The lines, and one with the number of those left out, which names a place."""
        place = os.path.join(self._folder, place)
        return [*self.lines, *([f"{place}: ... and {self.more:,} lines more"] if self.more else [])]
