"""The audit of an aggregate: its sources are what they were, and its tables are what their samples make of them."""

import dataclasses
import os
import sys
from typing import Any

import numpy as np

from beam_zoo.audit.audit import (
    Findings,
    PlanRows,
    TablePart,
    claims_of,
    entries_of,
    files_in,
    listing,
    number_of_table,
    strangers,
    table_part_of,
)
from beam_zoo.audit.plan import ROWS_FOUND, check_counts, check_keys, check_members, check_usable
from beam_zoo.audit.run import RunChecks
from beam_zoo.audit.tables import Gathered, Summaries, TableChecks, check_files
from beam_zoo.catalogue.read import ID
from beam_zoo.errors import StorageFull, UserError, one_line
from beam_zoo.members.member import to_json
from beam_zoo.plan.plan import Plan
from beam_zoo.storage import layout
from beam_zoo.storage.files import is_folder
from beam_zoo.storage.layout import MANIFEST, TABLES
from beam_zoo.tables.tables import Statistics
from beam_zoo.union.agreement import open_runs
from beam_zoo.union.reopen import Reopened, reopen
from beam_zoo.union.sources import facts_of

_KINDS: dict[str, type] = {
    "sources": list,
    "carried": list,
    "incomplete": str,
    "interval": str,
    "rows_per_table_part": int,
}
_SOURCE: dict[str, type] = {"path": str, "fingerprint": str, "parts": list}


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """An aggregate that is to be audited.

    Attributes:
        output: its folder.
        runs: plan and folder of each source, or None for one that is not what it was.
        opened: the sources read together, or None if they cannot be.
        elements: what is to be checked of the sources, and of the aggregate.
    """

    output: str
    runs: list[tuple[Plan, str] | None]
    opened: Reopened | None
    elements: list[PlanRows | TablePart]

    def totals(self, counts: dict[str, int]) -> dict[str, str]:
        """The counts of the manifest that were found: none unless every table part could be read."""
        if self.opened is None or counts.get("table parts", 0) != self.opened.union.table_parts:
            return {}
        return {**ROWS_FOUND, "rows_incomplete": "incomplete"}

    def healthy(self, counts: dict[str, int]) -> str:
        """The line for an aggregate that is as it should be."""
        assert self.opened is not None
        return (
            f"{self.output}: {self.opened.union.rows:,} rows of {len(self.runs)} sources = "
            f"{counts['predicted']:,} predicted + {counts['failed']:,} failed; {counts['part files']:,} parts "
            f"with {counts['part rows']:,} rows of samples and {counts['table files']:,} files of tables are as "
            "they should be"
        )


def follow(output: str, manifest: dict[str, Any], work: str, findings: Findings) -> Aggregate:
    """Find the sources of an aggregate, and what is to be checked; check what the manifest says of them.

    Args:
        output: folder of the aggregate.
        manifest: its manifest.
        work: an empty folder with room for the samples of sources that the aggregate has in another order; it is
            needed until all elements are checked.
        findings: takes what is wrong.

    Raises:
        StorageFull: the working folder's disk is full.
    """
    strangers(output, findings)
    whole = _are_of(_KINDS, manifest, "", findings)
    entries = manifest["sources"] if isinstance(manifest.get("sources"), list) else []
    if whole and not entries:
        findings.add(MANIFEST, "lists no sources")
    runs: list[tuple[Plan, str] | None] = []
    elements: list[PlanRows | TablePart] = []
    for number, entry in enumerate(entries):
        run = _open(number, entry, findings)
        runs.append(run)
        if run is not None:
            _check_source(number, entry, run[0], findings)
            elements += _elements_of(number, entry, *run, findings)
    opened = None
    if whole and runs and None not in runs:
        try:
            opened = reopen(output, work)
        except StorageFull:
            raise
        except Exception as error:  # Whatever damage it is: what is found of the sources tells more.
            findings.add(MANIFEST, f"its sources cannot be read together: {_text(error)}")
    _check_manifest(manifest, opened, findings)
    elements += _table_elements(output, manifest, opened, findings)
    return Aggregate(output, runs, opened, elements)


def _are_of(kinds: dict[str, type], content: dict[str, Any], who: str, findings: Findings) -> bool:
    wrong = [
        name
        for name, kind in kinds.items()
        if not isinstance(content.get(name), kind) or isinstance(content[name], bool)
    ]
    findings.some(MANIFEST, (f"{who}{name} is {one_line(repr(content.get(name)), 80)}" for name in wrong))
    size = content.get("rows_per_table_part", 1)
    if "rows_per_table_part" not in wrong and size < 1:
        findings.add(MANIFEST, f"rows_per_table_part is {size}")
        return False
    return not wrong


def _open(number: int, entry: Any, findings: Findings) -> tuple[Plan, str] | None:
    """Plan and folder of a source, if it is still the run that the manifest names."""
    who = f"source {number + 1} of {MANIFEST}"
    if not isinstance(entry, dict) or not _are_of(_SOURCE, entry, f"source {number + 1}: ", findings):
        if not isinstance(entry, dict):
            findings.add(MANIFEST, f"source {number + 1} is no mapping")
        return None
    path = entry["path"]
    if not is_folder(path):
        findings.add(path, f"{who} is not there: it was moved or removed")
        return None
    try:
        ((plan, folder),) = open_runs([path])
        check_usable(plan)
        fingerprint = plan.fingerprint
    except UserError as error:
        findings.add(path, f"{who} cannot be read: {_text(error)}")
        return None
    except Exception as error:
        findings.add(os.path.join(path, layout.PLAN_FILE), f"cannot be read ({_text(error)})")
        return None
    if fingerprint != entry["fingerprint"]:
        text = f"{who} holds another run by now: its fingerprint is {fingerprint[:12]}..., and was "
        findings.add(path, text + f"{entry['fingerprint'][:12]}...")
        return None
    return plan, folder


def _check_source(number: int, entry: dict[str, Any], plan: Plan, findings: Findings) -> None:
    for name, value in facts_of(plan).items():
        if entry.get(name) != value:
            text = f"source {number + 1}: {name} is {entry.get(name)!r}, and its plan says {value!r}"
            findings.add(MANIFEST, text)


def _elements_of(
    number: int, entry: dict[str, Any], plan: Plan, folder: str, findings: Findings
) -> list[PlanRows | TablePart]:
    """The elements of a source: all of it but its tables, which the aggregate is not made of."""
    who = f"source {number + 1}: "
    own = Findings(folder)
    names = files_in(plan, folder, layout.SAMPLES, own)
    findings.lines += own.all(layout.SAMPLES)

    def part(path: str) -> int | None:
        return table_part_of(plan, path) if os.path.dirname(path) == layout.SAMPLES else None

    claims = claims_of(entries_of(entry, "parts", MANIFEST, findings), part, findings, who)
    listed = {path for some in claims.values() for path in some}
    new = [f"{layout.SAMPLES}/{name}" for some in names.values() for name in some]
    new = [path for path in new if path not in listed]
    if new:
        findings.add(
            folder,
            f"{who}has parts that this aggregate was not made of ({len(new):,}, first {new[0]}): build it anew",
        )
    return [
        PlanRows(number, folder),
        *(
            TablePart(n, {layout.SAMPLES: names.get(n, ())}, claims.get(n, {}), number, folder)
            for n in range(plan.table_parts)
        ),
    ]


def _check_manifest(manifest: dict[str, Any], opened: Reopened | None, findings: Findings) -> None:
    """What can be said of the manifest without reading tables."""
    check_keys(manifest, findings)
    said: dict[str, Any] = {"command": "aggregate"}
    rows = manifest.get("rows_in")
    if opened is not None:
        union = opened.union
        rows = union.rows
        said |= {"rows_in": rows, "tables_fingerprint": union.tables_fingerprint}
        members = [
            {**to_json(member), "passes": list(numbers)}
            for member, numbers in zip(union.members, union.passes, strict=True)
        ]
        check_members(members, manifest.get("members"), findings)
    for name, value in said.items():
        if manifest.get(name) != value:
            findings.add(MANIFEST, f"{name} is {manifest.get(name)!r}, and its sources say {value!r}")
    if isinstance(rows, int):
        check_counts(manifest, "rows_incomplete", rows, findings)


def _table_elements(
    output: str, manifest: dict[str, Any], opened: Reopened | None, findings: Findings
) -> list[TablePart]:
    """The aggregate's own table parts; without its sources, those that it seems to have."""
    table_parts = sys.maxsize if opened is None else opened.union.table_parts

    def number_of(path: str) -> int | None:
        return number_of_table(path, TABLES, table_parts)

    seen = set() if opened is None else set(range(table_parts))
    for folder in TABLES:
        numbers = {name: number_of(f"{folder}/{name}") for name in listing(output, folder)}
        strange = (f"{name} does not belong there" for name, n in numbers.items() if n is None)
        findings.some(folder, strange)
        seen |= {n for n in numbers.values() if n is not None}
    claims = claims_of(entries_of(manifest, "tables", MANIFEST, findings), number_of, findings)
    return [TablePart(n, {}, claims.get(n, {})) for n in sorted(seen | set(claims))]


class AggregateChecks:
    """Checks of an aggregate and its sources: memory is that of a part, or of a table part's samples.

    Args:
        aggregate: of `follow`, less its elements.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        self._output, self._opened = aggregate.output, aggregate.opened
        self._sources = [run and RunChecks(*run, tables=False) for run in aggregate.runs]
        if self._opened is not None:
            self._statistics = Statistics(self._opened.union)
            self._tables = TableChecks(self._opened.union, self._output, self._statistics)

    def check(self, element: PlanRows | TablePart, findings: Findings) -> dict[str, int]:
        """Check a source's rows or parts, or the tables of the aggregate; returns counts."""
        if element.source is not None:
            source = self._sources[element.source]
            assert source is not None
            counts = source.check(element, findings)
            return {name: counts[name] for name in ("part files", "part rows") if name in counts}
        assert isinstance(element, TablePart)
        counts = {}
        gathered = None if self._opened is None else self._gather(self._opened, element, findings, counts)
        if gathered is None:
            check_files(self._output, element, findings)
            return {}
        return {**counts, "table files": self._tables.check(element, gathered, findings)}

    def _gather(
        self, opened: Reopened, task: TablePart, findings: Findings, counts: dict[str, int]
    ) -> Gathered | None:
        """Read a table part's samples from the sources, whose parts are checked by elements of their own."""
        union = opened.union
        try:
            part = opened.table_part(task.number)
        except Exception as error:
            findings.add(task.what, f"cannot be held against its samples: {_text(error)}")
            return None
        ids, start = part.rows.column(ID).to_pylist(), union.table_rows(task.number).start
        summaries = Summaries(union, self._statistics)
        rows, incomplete = [np.zeros(0, np.int64)], 0
        for some in part.galaxies:
            summaries.add(some.samples)
            rows.append(some.rows - start)
            incomplete += len(some.rows) * (len(some.present) < len(union.layouts.samples))
        predicted = np.concatenate(rows)
        order = np.argsort(predicted, kind="stable")
        numbers, plain = summaries.numbers()
        counts |= {
            "table parts": 1,
            "predicted": len(predicted),
            "failed": len(part.failures),
            "incomplete": incomplete,
        }
        return Gathered(
            part.rows,
            ids,
            predicted[order],
            {row - start: [failure] for row, _, failure in part.failures},
            set(),
            {folder: values[order] for folder, values in numbers.items()},
            plain[order],
        )


def _text(error: Exception) -> str:
    text = one_line(error, 300)
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
