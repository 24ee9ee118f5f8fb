"""The audit of an output: what its plan, its parts, its tables and its manifest say must be one story.

The work is cut into one element per table part, and one for the plan itself. An element says what its files are
and what the manifest says of them; what comes out are lines about what is wrong, bounded in number, and counts.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import apache_beam as beam
import numpy as np

from beam_zoo.errors import one_line
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.storage import layout
from beam_zoo.storage.files import names
from beam_zoo.storage.layout import FAILURES, MANIFEST, TABLES, part_number, table_file

COUNTS = "counts"
LINES = 20
"""Lines of an element; what else is wrong there is counted."""
FEW = 3
"""Lines about the same kind of damage in the same file."""


class Findings:
    """Lines about what is wrong, each naming a file: a bounded number, and how many more there are.

    Args:
        folder: that the files are in, where it is not the output itself.

    Attributes:
        lines: the lines.
        more: how many others there would be.
    """

    def __init__(self, folder: str = "") -> None:
        self.lines: list[str] = []
        self.more = 0
        self._folder = folder

    def add(self, file: str, text: str) -> None:
        """One thing that is wrong with a file (its path below the output, or below the folder)."""
        if len(self.lines) < LINES:
            self.lines.append(one_line(f"{os.path.join(self._folder, file)}: {text}", 600))
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
        place = os.path.join(self._folder, where)
        return [*self.lines, *([f"{place}: ... and {self.more:,} lines more"] if self.more else [])]


@dataclasses.dataclass(frozen=True)
class PlanRows:
    """The element that stands for the rows of a plan.

    Attributes:
        source: number of the run of an aggregate that the plan is of, or None for the output's own.
        folder: that run's folder.
    """

    source: int | None = None
    folder: str = ""

    @property
    def what(self) -> str:
        """How a line calls it."""
        return "_plan"


@dataclasses.dataclass(frozen=True)
class TablePart:
    """The element of a table part.

    Attributes:
        number: of the table part.
        names: folder of parts -> names of the files of this table part's snippets in it.
        claims: what the manifest says of this table part's files: path below the output -> its entry.
        source: number of the run of an aggregate that it is a table part of, or None for the output's own.
        folder: that run's folder.
    """

    number: int
    names: dict[str, tuple[str, ...]]
    claims: dict[str, dict[str, Any]]
    source: int | None = None
    folder: str = ""

    @property
    def what(self) -> str:
        """How a line calls it."""
        return f"table part {self.number}"


class Checks(Protocol):
    """What is to be checked of an element."""

    def check(self, element: Any, findings: Findings) -> dict[str, int]:
        """Check an element; returns counts, to be added up over all elements."""


class Audit(beam.DoFn):
    """Checks one element: lines about what is wrong, and (what, number) on the output `COUNTS`.

    Args:
        make: makes the checks, in the worker.
        arguments: of `make`.
    """

    def __init__(self, make: Callable[..., Checks], *arguments: Any) -> None:
        self._make, self._arguments = make, arguments

    def setup(self) -> None:
        self._checks = self._make(*self._arguments)

    def process(self, element: PlanRows | TablePart) -> Iterator[Any]:
        findings = Findings(element.folder)
        counts: dict[str, int] = {}
        try:
            counts = self._checks.check(element, findings)
        except Exception as error:  # Damage takes every form: what stops a check is a finding like others.
            findings.add(element.what, f"cannot be checked to the end: {type(error).__name__}: {error}")
        yield from findings.all(element.what)
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
    strangers(output, findings)
    names: dict[int, dict[str, tuple[str, ...]]] = {n: {} for n in range(plan.table_parts)}
    for folder in folders(plan):
        for number, found in files_in(plan, output, folder, findings).items():
            if folder in parts.folders(plan):
                names[number][folder] = found
    members = [member.name for member in plan.members] if plan.command == "represent" else []
    others = [name for name in listing(output, layout.REPRESENTATIONS) if name not in members]
    findings.some(layout.REPRESENTATIONS, (f"{name} does not belong there" for name in others))
    entries = [e for key in ("tables", "parts") for e in entries_of(manifest, key, MANIFEST, findings)]
    claims = claims_of(entries, lambda path: table_part_of(plan, path), findings)
    return [PlanRows(), *(TablePart(n, names[n], claims.get(n, {})) for n in names)]


def strangers(output: str, findings: Findings) -> None:
    """Names in the output's folder itself that this program does not write."""
    ours = {*TABLES, layout.SAMPLES, layout.REPRESENTATIONS, MANIFEST}
    strange = [name for name in listing(output, "") if name not in ours]
    for name in strange[:FEW]:
        findings.add(name, "does not belong there")
    if len(strange) > FEW:
        findings.add(".", f"... and {len(strange) - FEW:,} more like this")


def files_in(plan: Plan, output: str, folder: str, findings: Findings) -> dict[int, tuple[str, ...]]:
    """Table part -> names of its files in a folder; names that the plan does not have are findings."""
    found = listing(output, folder)
    strange = [name for name in found if table_part_of(plan, f"{folder}/{name}") is None]
    findings.some(folder, (f"{name} does not belong there" for name in strange))
    names: dict[int, tuple[str, ...]] = {}
    for name in sorted(set(found) - set(strange), key=_in_order):
        number = table_part_of(plan, f"{folder}/{name}")
        assert number is not None
        names[number] = (*names.get(number, ()), name)
    return names


def claims_of(
    entries: Iterable[dict[str, Any]],
    number_of: Callable[[str], int | None],
    findings: Findings,
    who: str = "",
) -> dict[int, dict[str, dict[str, Any]]]:
    """Table part -> path -> what the manifest says of that file.

    Args:
        entries: of the manifest.
        number_of: gives the table part of a file, or None for one that cannot be there.
        findings: takes what is wrong with the list.
        who: whose list it is, where it is not the output's.
    """
    claims: dict[int, dict[str, dict[str, Any]]] = {}
    for entry in entries:
        name = entry["name"]
        number = number_of(name)
        if number is None:
            findings.add(MANIFEST, f"{who}lists {name!r}, which is no file of this plan")
        elif name in claims.setdefault(number, {}):
            findings.add(MANIFEST, f"{who}lists {name!r} twice")
        else:
            claims[number][name] = entry
    return claims


def entries_of(content: Any, key: str, file: str, findings: Findings) -> list[dict[str, Any]]:
    """The entries of a list of files, those that have a name."""
    entries = content.get(key)
    if not isinstance(entries, list):
        findings.add(file, f"has no list {key!r}")
        return []
    named = [isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries]
    findings.some(
        file,
        (
            f"has an entry of {key!r} without a name: {e!r}"
            for e, n in zip(entries, named, strict=True)
            if not n
        ),
    )
    return [entry for entry, has_name in zip(entries, named, strict=True) if has_name]


def folders(plan: Plan) -> list[str]:
    """Every folder of parts or tables: those of the plan, and those that must be empty."""
    return list(dict.fromkeys([*parts.folders(plan), layout.SAMPLES, *TABLES]))


def listing(output: str, folder: str) -> list[str]:
    """Names in a folder of the output, but for left-overs: those that begin with `.` or `_`."""
    try:
        return [name for name in names(os.path.join(output, folder)) if name[0] not in "._"]
    except NotADirectoryError:
        return []


def table_part_of(plan: Plan, path: str) -> int | None:
    """The table part that a file of the plan belongs to, or None for a name that the plan does not have."""
    folder, name = os.path.split(path)
    found = part_number(name)
    if found is None:
        return None
    number, attempt = found
    if folder in parts.folders(plan):
        right = number < plan.snippets and name == layout.part_name(number, attempt)
        return plan.table_part(number) if right else None
    return number_of_table(path, TABLES if plan.command == "predict" else (FAILURES,), plan.table_parts)


def number_of_table(path: str, tables: tuple[str, ...], table_parts: int) -> int | None:
    """The number of a part of one of these tables, or None for a name that none of them has."""
    folder, name = os.path.split(path)
    number, _ = part_number(name) or (table_parts, 0)
    right = folder in tables and number < table_parts and path == table_file(folder, number)
    return number if right else None


def snippet_of(name: str) -> int:
    """The snippet of a part's file name."""
    return _in_order(name)[0]


def _in_order(name: str) -> tuple[int, int]:
    found = part_number(name)
    assert found is not None
    return found
