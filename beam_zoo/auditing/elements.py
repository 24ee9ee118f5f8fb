"""The elements that the audit is cut into."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from beam_zoo.auditing.findings import Findings

NumbersByName = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Element:
    """What is checked at once: a table part with the stored parts that it is made of, or the files of a plan.

    Attributes:
        number: of the table part, or None for the files of a plan.
        files: paths, below the folder, of the table part's files that are there.
        listed: path -> what the manifest says of that file of the table part.
        source: number of the run of an aggregate that it belongs to, or None for the output itself.
        folder: that run's folder.
    """

    number: int | None
    files: frozenset[str] = frozenset()
    listed: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    source: int | None = None
    folder: str = ""

    @property
    def name(self) -> str:
        """How a line calls it."""
        return "_plan" if self.number is None else f"table part {self.number}"


def check_element(
    element: Element, check: Callable[[Element, Findings], NumbersByName]
) -> Iterator[str | tuple[str, int]]:
    """Yields lines about what is wrong with an element, and (name, number) of counts, to be added up.

    Args:
        element: the element.
        check: that of an audit: it gives what is wrong to `Findings`, and returns counts.
    """
    findings, counts = Findings(element.folder), {"elements": 1}
    try:
        counts |= check(element, findings)
    except Exception as error:  # Damage takes every form: what stops a check is a finding, too.
        findings.add(element.name, f"cannot be checked to the end: {type(error).__name__}: {error}")
    yield from findings.all(element.name)
    yield from counts.items()
