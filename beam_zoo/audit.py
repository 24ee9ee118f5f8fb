"""The audit of an output: what its plan, its parts, its tables and its manifest say must be one story.

The work is cut into one element per table part, and one for the plan itself. An element says what its files are
and what the manifest says of them; what comes out are lines about what is wrong, bounded in number, and counts.
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from beam_zoo import parts
from beam_zoo.errors import one_line
from beam_zoo.output import MANIFEST
from beam_zoo.plan import Plan
from beam_zoo.tables import ADVANCED, FAILURES, FRIENDLY

COUNTS = "counts"
LINES = 20
"""Lines of an element; what else is wrong there is counted."""
FEW = 3
"""Lines about the same kind of damage in the same file."""

_PART = re.compile(r"part-(\d+)(?:_(\d+))?\.parquet")


class Findings:
    """Lines about what is wrong, each naming a file: a bounded number, and how many more there are.

    Attributes:
        lines: the lines.
        more: how many others there would be.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.more = 0

    def add(self, file: str, text: str) -> None:
        """One thing that is wrong with a file (its path below the output)."""
        if len(self.lines) < LINES:
            self.lines.append(one_line(f"{file}: {text}", 600))
        else:
            self.more += 1

    def some(self, file: str, texts: Iterable[str]) -> None:
        """The same thing, many times: a few of them and their number."""
        found = 0
        for text in texts:
            found += 1
            if found <= FEW:
                self.add(file, text)
        if found > FEW:
            self.add(file, f"... and {found - FEW:,} more like this")

    def cells(
        self, file: str, bad: np.ndarray, ids: list[str], columns: list[str], values: np.ndarray, but: Any
    ) -> None:
        """Numbers of a table that are wrong.

        Args:
            file: the table's part.
            bad: bool, shape (galaxy, column).
            ids: of the galaxies.
            columns: names of the columns.
            values: the numbers, shape (galaxy, column).
            but: what they should be: a text, or an array of the same shape.
        """
        where = np.argwhere(bad)

        def text(row: int, column: int) -> str:
            right = but if isinstance(but, str) else f"and should be {but[row, column]:.7g}"
            return f"galaxy {ids[row]!r}: {columns[column]} is {values[row, column]:.7g} {right}"

        for row, column in where[:FEW].tolist():
            self.add(file, text(row, column))
        if len(where) > FEW:
            self.add(file, f"... and {len(where) - FEW:,} more like this")

    def all(self, where: str) -> list[str]:
        """The lines, and one for those that were only counted, which names where they would be."""
        return [*self.lines, *([f"{where}: ... and {self.more:,} lines more"] if self.more else [])]


@dataclasses.dataclass(frozen=True)
class PlanRows:
    """The element that stands for the rows of the plan."""


@dataclasses.dataclass(frozen=True)
class TablePart:
    """The element of a table part.

    Attributes:
        number: of the table part.
        names: folder of parts -> names of the files of this table part's snippets in it.
        claims: what the manifest says of this table part's files: path below the output -> its entry.
    """

    number: int
    names: dict[str, tuple[str, ...]]
    claims: dict[str, dict[str, Any]]


class Audit(beam.DoFn):
    """Checks one element: lines about what is wrong, and (what, number) on the output `COUNTS`.

    Args:
        plan: the plan of the output.
        output: its folder.
    """

    def __init__(self, plan: Plan, output: str) -> None:
        self._plan, self._output = plan, output

    def setup(self) -> None:
        from beam_zoo.audit_tables import TableChecks

        self._tables = TableChecks(self._plan, self._output)

    def process(self, element: PlanRows | TablePart) -> Iterator[Any]:
        from beam_zoo.audit_plan import check_rows

        findings = Findings()
        counts: dict[str, int] = {}
        what = "_plan" if isinstance(element, PlanRows) else f"table part {element.number}"
        try:
            if isinstance(element, PlanRows):
                check_rows(self._plan, self._output, findings)
            else:
                counts = self._tables.check(element, findings)
        except Exception as error:  # Damage takes every form: what stops a check is a finding like others.
            findings.add(what, f"cannot be checked to the end: {type(error).__name__}: {error}")
        yield from findings.all(what)
        for name, number in {**counts, "elements": 1}.items():
            yield beam.pvalue.TaggedOutput(COUNTS, (name, number))


def elements(plan: Plan, output: str, manifest: dict[str, Any], findings: Findings) -> list[Any]:
    """The elements of an output, from one look into its folders and its manifest.

    Args:
        plan: the plan of the output.
        output: its folder.
        manifest: its manifest.
        findings: takes what is wrong with the folders: names that are not the program's, or not of this plan.
    """
    names: dict[int, dict[str, list[str]]] = {n: {} for n in range(plan.table_parts)}
    for folder in folders(plan):
        found = listing(output, folder)
        strange = [name for name in found if table_part_of(plan, f"{folder}/{name}") is None]
        findings.some(folder, (f"{name} does not belong there" for name in strange))
        if folder in parts.folders(plan):
            for name in sorted(set(found) - set(strange), key=_in_order):
                number = table_part_of(plan, f"{folder}/{name}")
                assert number is not None
                names[number].setdefault(folder, []).append(name)
    members = [member.name for member in plan.members] if plan.command == "represent" else []
    others = [name for name in listing(output, parts.REPRESENTATIONS) if name not in members]
    findings.some(parts.REPRESENTATIONS, (f"{name} does not belong there" for name in others))
    claims: dict[int, dict[str, dict[str, Any]]] = {n: {} for n in range(plan.table_parts)}
    for entry in _entries(manifest, findings):
        number = table_part_of(plan, entry["name"])
        if number is None:
            findings.add(MANIFEST, f"lists {entry['name']!r}, which is no file of this plan")
        elif entry["name"] in claims[number]:
            findings.add(MANIFEST, f"lists {entry['name']!r} twice")
        else:
            claims[number][entry["name"]] = entry
    tables = [
        TablePart(n, {folder: tuple(found) for folder, found in names[n].items()}, claims[n]) for n in names
    ]
    return [PlanRows(), *tables]


def _entries(manifest: dict[str, Any], findings: Findings) -> Iterator[dict[str, Any]]:
    for key in ("tables", "parts"):
        entries = manifest.get(key)
        if not isinstance(entries, list):
            findings.add(MANIFEST, f"has no list {key!r}")
            continue
        for entry in entries:
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                yield entry
            else:
                findings.add(MANIFEST, f"has an entry of {key!r} without a name: {entry!r}")


def folders(plan: Plan) -> list[str]:
    """Every folder of parts or tables: those of the plan, and those that must be empty."""
    return list(dict.fromkeys([*parts.folders(plan), parts.SAMPLES, FRIENDLY, ADVANCED, FAILURES]))


def listing(output: str, folder: str) -> list[str]:
    """Names in a folder of the output, but for left-overs: those that begin with `.` or `_`."""
    try:
        return sorted(name for name in os.listdir(os.path.join(output, folder)) if name[0] not in "._")
    except (FileNotFoundError, NotADirectoryError):
        return []


def table_part_of(plan: Plan, path: str) -> int | None:
    """The table part that a file of the plan belongs to, or None for a name that the plan does not have."""
    folder, name = os.path.split(path)
    match = _PART.fullmatch(name)
    if match is None:
        return None
    number, attempt = int(match[1]), int(match[2] or 0)
    if folder in parts.folders(plan):
        right = number < plan.snippets and name == parts.part_name(number, attempt)
        return plan.table_part(number) if right else None
    tables = (FRIENDLY, ADVANCED, FAILURES) if plan.command == "predict" else (FAILURES,)
    right = folder in tables and number < plan.table_parts and path == table_name(folder, number)
    return number if right else None


def table_name(folder: str, part: int) -> str:
    """Path below the output of a table's part."""
    return f"{folder}/part-{part:06d}.parquet"


def snippet_of(name: str) -> int:
    """The snippet of a part's file name."""
    return _in_order(name)[0]


def _in_order(name: str) -> tuple[int, int]:
    match = _PART.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)
