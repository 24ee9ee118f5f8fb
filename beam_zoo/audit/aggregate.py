"""The audit of an aggregate: its sources are what they were, and its tables are what their samples make of them."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from beam_zoo.audit import manifest as manifests
from beam_zoo.audit.compare import compare_entries
from beam_zoo.audit.elements import Checks, Element
from beam_zoo.audit.expected import Definitions, ExpectedTablePart
from beam_zoo.audit.findings import Findings
from beam_zoo.audit.output_files import (
    check_output_folder,
    files_by_table_part,
    listed_by_table_part,
    table_part_of_run,
    table_part_of_tables,
)
from beam_zoo.audit.plan_files import require_usable
from beam_zoo.audit.run import COUNTS, RunChecks
from beam_zoo.audit.table_files import TableChecks, check_readable
from beam_zoo.errors import StorageFull, UserError, one_line
from beam_zoo.members.member import to_json
from beam_zoo.plan.plan import Plan
from beam_zoo.storage import layout
from beam_zoo.storage.files import is_folder
from beam_zoo.storage.layout import MANIFEST, TABLES
from beam_zoo.union.agreement import open_runs
from beam_zoo.union.reopen import Reopened, reopen
from beam_zoo.union.sources import facts_of

OF_MANIFEST: manifests.Kinds = {
    "sources": list,
    "carried": list,
    "incomplete": str,
    "interval": str,
    "rows_per_table_part": int,
}
OF_SOURCE: manifests.Kinds = {"path": str, "fingerprint": str, "parts": list}

Run = tuple[Plan, str]


class AggregateAudit:
    """The audit of an output of `aggregate`.

    Args:
        output: its folder.
        manifest: the content of its manifest.
        work: an empty folder with room for the samples of sources that the aggregate has in another order; it is
            needed until all elements are checked.
        findings: takes what is wrong.

    Attributes:
        elements: what is to be checked of the sources and of the aggregate.

    Raises:
        StorageFull: the working folder's disk is full.
    """

    def __init__(self, output: str, manifest: dict[str, Any], work: str, findings: Findings) -> None:
        self._output, self._manifest = output, manifest
        self.elements: list[Element] = []
        self._runs: list[Run | None] = []
        check_output_folder(output, findings)
        whole = self._check_entries(findings)
        for number, entry in enumerate(
            manifest["sources"] if isinstance(manifest.get("sources"), list) else []
        ):
            run = _open(number, entry, findings)
            self._runs.append(run)
            if run is not None:
                self.elements += _elements_of(number, entry, *run, findings)
        self._opened: Reopened | None = None
        if whole and None not in self._runs:
            try:
                self._opened = reopen(output, work)
            except StorageFull:
                raise
            except Exception as error:  # Damage takes every form; the checks of the sources tell more.
                findings.add(MANIFEST, f"its sources cannot be read together: {_text(error)}")
        self._check_manifest(findings)
        self.elements += self._table_elements(findings)

    def _check_entries(self, findings: Findings) -> bool:
        """Whether the manifest has the entries by which the sources are read."""
        manifest = self._manifest
        there = {name: manifest.get(name) for name in OF_MANIFEST}
        whole = manifests.check_kinds(there, OF_MANIFEST, findings)
        if whole and not manifest["sources"]:
            findings.add(MANIFEST, "lists no sources")
            return False
        if whole and manifest["rows_per_table_part"] < 1:
            findings.add(MANIFEST, f"rows_per_table_part is {manifest['rows_per_table_part']}")
            return False
        return whole

    def _check_manifest(self, findings: Findings) -> None:
        manifest = self._manifest
        manifests.check_kinds(manifest, manifests.OF_AGGREGATES, findings)
        right: dict[str, Any] = {"command": "aggregate"}
        if self._opened is not None:
            union = self._opened.union
            right |= {"rows_in": union.rows, "tables_fingerprint": union.tables_fingerprint}
            members = [
                {**to_json(member), "passes": list(numbers)}
                for member, numbers in zip(union.members, union.passes, strict=True)
            ]
            manifests.check_members(members, manifest.get("members"), findings)
        compare_entries(manifest, right, "and its sources say", findings)

    def _table_elements(self, findings: Findings) -> list[Element]:
        """The aggregate's own table parts; where its sources cannot be read, those that it seems to have."""
        count = sys.maxsize if self._opened is None else self._opened.union.table_parts
        table_part_of = table_part_of_tables(TABLES, count)
        files = files_by_table_part(self._output, TABLES, table_part_of, findings)
        listed = listed_by_table_part(self._manifest, ("tables",), table_part_of, findings)
        numbers = files.keys() | listed.keys() if self._opened is None else range(count)
        return [Element(n, tuple(files.get(n, ())), listed.get(n, {})) for n in sorted(numbers)]

    @property
    def make_checks(self) -> Callable[[], Checks]:
        """Makes the checks of the elements, in a worker."""
        return functools.partial(AggregateChecks, self._output, self._runs, self._opened)

    def check_counts(self, counts: dict[str, int], findings: Findings) -> None:
        """Compare the manifest's counts with the sums over all elements, if all table parts could be read."""
        if self._opened is not None and counts.get("table parts", 0) == self._opened.union.table_parts:
            names = {**COUNTS, "rows_incomplete": "incomplete"}
            manifests.check_counts(self._manifest, names, counts, findings)

    def healthy(self, counts: dict[str, int]) -> str:
        """The line for an aggregate in which nothing is wrong."""
        assert self._opened is not None
        return (
            f"{self._output}: {self._opened.union.rows:,} rows of {len(self._runs)} sources = "
            f"{counts['predicted']:,} predicted + {counts['failed']:,} failed; {counts['part files']:,} parts "
            f"with {counts['part rows']:,} rows of samples and {counts['table files']:,} files of tables are as "
            "they should be"
        )


def _open(number: int, entry: Any, findings: Findings) -> Run | None:
    """Plan and folder of a source, if it is still the run that the manifest names."""
    who = f"source {number + 1} of {MANIFEST}"
    if not isinstance(entry, dict):
        findings.add(MANIFEST, f"source {number + 1} is no mapping")
        return None
    if not manifests.check_kinds(
        {name: entry.get(name) for name in OF_SOURCE}, OF_SOURCE, findings, f"source {number + 1}: "
    ):
        return None
    path = entry["path"]
    if not is_folder(path):
        findings.add(path, f"{who} is not there: it was moved or removed")
        return None
    try:
        ((plan, folder),) = open_runs([path])
        require_usable(plan)
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


def _elements_of(
    number: int, entry: dict[str, Any], plan: Plan, folder: str, findings: Findings
) -> list[Element]:
    """The elements of a source: all of it but its tables, which the aggregate was not made of."""
    who = f"source {number + 1}: "
    compare_entries(entry, facts_of(plan), "and its plan says", findings, before=who)
    in_run = table_part_of_run(plan)

    def table_part_of(path: str) -> int | None:
        return in_run(path) if os.path.dirname(path) == layout.SAMPLES else None

    own = Findings(folder)
    files = files_by_table_part(folder, [layout.SAMPLES], table_part_of, own)
    findings.lines += own.lines
    listed = listed_by_table_part(entry, ["parts"], table_part_of, findings, who)
    new = [file for n in files for file in files[n] if file not in listed.get(n, {})]
    if new:
        text = f"has parts that this aggregate was not made of ({len(new):,}, first {new[0]}): build it anew"
        findings.add(folder, who + text)
    return [
        Element(None, source=number, folder=folder),
        *(
            Element(n, tuple(files.get(n, ())), listed.get(n, {}), number, folder)
            for n in range(plan.table_parts)
        ),
    ]


class AggregateChecks:
    """Checks of the elements of an aggregate; memory is that of a stored part, or of a table part's samples.

    Args:
        output: folder of the aggregate.
        runs: plan and folder of each source, or None for one that is not what it was.
        opened: the sources read together, or None if they cannot be.
    """

    def __init__(self, output: str, runs: list[Run | None], opened: Reopened | None) -> None:
        self._output, self._opened = output, opened
        self._sources = [run and RunChecks(*run, tables=False) for run in runs]
        if opened is not None:
            self._definitions = Definitions(opened.union)
            self._tables = TableChecks(opened.union, output, self._definitions)

    def check(self, element: Element, findings: Findings) -> dict[str, int]:
        """Check a source's plan or parts, or the tables of the aggregate; returns counts."""
        if element.source is not None:
            source = self._sources[element.source]
            assert source is not None
            counts = source.check(element, findings)
            return {name: counts[name] for name in ("part files", "part rows") if name in counts}
        counts = {}
        expected = None if self._opened is None else self._read(self._opened, element, findings, counts)
        if expected is None:
            check_readable(self._output, element, findings)
            return {}
        return {**counts, "table files": self._tables.check(element, expected, findings)}

    def _read(
        self, opened: Reopened, element: Element, findings: Findings, counts: dict[str, int]
    ) -> ExpectedTablePart | None:
        """Read a table part's samples from the sources, whose parts are checked by elements of their own."""
        union = opened.union
        assert element.number is not None
        try:
            part = opened.table_part(element.number)
        except Exception as error:
            findings.add(element.name, f"cannot be held against its samples: {_text(error)}")
            return None
        start = union.table_rows(element.number).start
        rows, numbers = [np.zeros(0, np.int64)], [np.zeros((0, len(union.outputs), 4))]
        incomplete = 0
        for some in part.galaxies:
            rows.append(some.rows - start)
            numbers.append(self._definitions.numbers(some.rows - start, some.samples))
            incomplete += len(some.rows) * (len(some.present) < len(union.layouts.samples))
        predicted = np.concatenate(rows)
        order = np.argsort(predicted, kind="stable")
        failures = {row - start: [failure] for row, _, failure in part.failures}
        counts |= {
            "table parts": 1,
            "predicted": len(predicted),
            "failed": len(failures),
            "incomplete": incomplete,
        }
        return ExpectedTablePart(part.rows, predicted[order], failures, set(), np.concatenate(numbers)[order])


def _text(error: Exception) -> str:
    text = one_line(error, 300)
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
