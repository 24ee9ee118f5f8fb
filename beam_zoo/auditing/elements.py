"""The elements that the audit is cut into, and the step that checks them."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import apache_beam as beam

from beam_zoo.auditing.findings import Findings

COUNTS = "counts"
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


class Audit(Protocol):
    """The audit of an output; it is pickled."""

    def check(self, element: Element, findings: Findings) -> NumbersByName:
        """Check an element; returns counts, which are added up over all elements."""

    def check_counts(self, manifest: dict[str, Any], counts: NumbersByName, findings: Findings) -> None:
        """Compare the counts of the manifest with the sums over all elements."""

    def healthy(self, counts: NumbersByName) -> str:
        """The line for an output in which nothing is wrong."""


class CheckElement(beam.DoFn):
    """Checks an element: lines about what is wrong come out, and (name, number) on the output `COUNTS`.

    Args:
        audit: the audit of the output.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def process(self, element: Element) -> Iterator[Any]:
        findings = Findings(element.folder)
        counts: NumbersByName = {}
        try:
            counts = self._audit.check(element, findings)
        except Exception as error:  # Damage takes every form: what stops a check is a finding, too.
            findings.add(element.name, f"cannot be checked to the end: {type(error).__name__}: {error}")
        yield from findings.all(element.name)
        for name, number in {**counts, "elements": 1}.items():
            yield beam.pvalue.TaggedOutput(COUNTS, (name, number))
