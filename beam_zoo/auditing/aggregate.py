"""The audit of an aggregate: its sources are unchanged, and its tables are those of their samples."""

import dataclasses
import functools
import sys
from collections import Counter
from typing import Any

from beam_zoo.auditing import manifest as manifests
from beam_zoo.auditing.elements import Element, NumbersByName
from beam_zoo.auditing.expected import ExpectedTablePart
from beam_zoo.auditing.findings import Findings
from beam_zoo.auditing.plan_files import require_usable
from beam_zoo.auditing.run import RunAudit
from beam_zoo.auditing.table_files import TableFiles
from beam_zoo.members.member import to_json
from beam_zoo.storage.files import is_folder
from beam_zoo.storage.layout import MANIFEST, TABLES
from beam_zoo.union.output_samples import OutputSamples, open_samples
from beam_zoo.union.runs import manifest_entry, open_runs

OF_MANIFEST: manifests.Types = {
    "sources": list,
    "carried": list,
    "incomplete": str,
    "interval": str,
    "rows_per_table_part": int,
}
OF_SOURCE: manifests.Types = {"path": str, "fingerprint": str, "parts": list}


def open_aggregate(
    output: str, manifest: dict[str, Any], work: str, findings: Findings
) -> tuple["AggregateAudit", list[Element]]:
    """Check the manifest of an aggregate, find its sources, and find the elements.

    Args:
        output: its folder.
        manifest: the content of its manifest.
        work: an empty folder with room for the samples of sources that the aggregate has in another order; it
            is needed until all elements are checked.
        findings: takes what is wrong.

    Raises:
        StorageFull: the working folder's disk is full.
    """
    whole = manifests.check_types({name: manifest.get(name) for name in OF_MANIFEST}, OF_MANIFEST, findings)
    entries = manifest["sources"] if isinstance(manifest.get("sources"), list) else []
    if whole and not entries:
        findings.add(MANIFEST, "lists no sources")
    if whole and manifest["rows_per_table_part"] < 1:
        findings.add(MANIFEST, f"rows_per_table_part is {manifest['rows_per_table_part']}")
        whole = False
    sources: list[RunAudit | None] = []
    elements: list[Element] = []
    for number, entry in enumerate(entries):
        sources.append(source := _open_source(number, entry, findings))
        if source is not None:
            elements += _elements_of(source, entry, findings, f"source {number + 1}: ")
    opened = None
    if whole and sources and None not in sources:
        with findings.unreadable(MANIFEST, "its sources cannot be read together"):
            opened = open_samples(output, work)
    manifests.check_types(manifest, {**manifests.OF_ALL, "options": dict}, findings)
    right: dict[str, Any] = {"command": "aggregate"}
    table_parts, numbers = sys.maxsize, range(0)  # without the sources: those that there seem to be
    if opened is not None:
        union = opened.union
        table_parts, numbers = union.table_parts, range(union.table_parts)
        right |= {"rows_in": union.rows, "tables_fingerprint": union.tables_fingerprint}
        each = zip(union.members, union.passes, strict=True)
        members = [{**to_json(member), "passes": list(passes)} for member, passes in each]
        manifests.compare_members(manifest.get("members"), members, findings)
    manifests.compare_entries(manifest, right, "its sources say {}", findings)
    lists = {"tables": manifest.get("tables")}
    table_part_of = functools.partial(manifests.table_number, tables=TABLES, table_parts=table_parts)
    elements += manifests.find_elements(output, TABLES, lists, numbers, table_part_of, findings)
    manifests.check_output_folder(output, findings)
    return AggregateAudit(output, tuple(sources), opened), elements


def _open_source(number: int, entry: Any, findings: Findings) -> RunAudit | None:
    """The audit of a source, if it is still the run that the manifest names."""
    if not isinstance(entry, dict):
        findings.add(MANIFEST, f"source {number + 1} is no mapping")
        return None
    there = {name: entry.get(name) for name in OF_SOURCE}
    if not manifests.check_types(there, OF_SOURCE, findings, f"source {number + 1}: "):
        return None
    who, path, right = f"source {number + 1} of {MANIFEST}", entry["path"], entry["fingerprint"]
    if not is_folder(path):
        findings.add(path, f"{who} is not there: it was moved or removed")
        return None
    with findings.unreadable(path, f"{who} cannot be read"):
        ((plan, folder),) = open_runs([path])
        require_usable(plan)
        if plan.fingerprint == right:
            return RunAudit(plan, folder, number)
        text = f"its fingerprint is {plan.fingerprint[:12]}..., and was {right[:12]}..."
        findings.add(path, f"{who} holds another run by now: {text}")
    return None


def _elements_of(source: RunAudit, entry: dict[str, Any], findings: Findings, who: str) -> list[Element]:
    """The elements of a source: all of it but its tables, which the aggregate was not made of."""
    manifests.compare_entries(entry, manifest_entry(source.plan), "its plan says {}", findings, before=who)
    elements = source.elements({"parts": entry["parts"]}, findings)
    new = sorted(file for element in elements for file in element.files - element.listed.keys())
    if new:
        text = f"has parts that this aggregate was not made of ({len(new):,}, first {new[0]}): build it anew"
        findings.add(source.output, who + text)
    return elements


@dataclasses.dataclass(frozen=True)
class AggregateAudit:
    """The audit of an output of `aggregate`; memory is that of a stored part, or of a table part's samples.

    Attributes:
        output: its folder.
        sources: the audit of each source, or None for one that is not what it was.
        opened: the sources read together, or None if they cannot be.
    """

    output: str
    sources: tuple[RunAudit | None, ...]
    opened: OutputSamples | None

    def check(self, element: Element, findings: Findings) -> NumbersByName:
        """Check a source's plan or parts, or the tables of the aggregate; returns counts."""
        if element.source is not None:
            source = self.sources[element.source]
            assert source is not None
            counts = source.check(element, findings)
            return {name: counts[name] for name in ("part files", "part rows") if name in counts}
        assert element.number is not None
        tables, opened, part = TableFiles(self.output, element, findings), self.opened, None
        if opened is not None:
            # The stored parts are checked by elements of their own.
            with findings.unreadable(element.name, "cannot be held against its samples"):
                part = opened.read_table_part(element.number)
        if opened is None or part is None:
            tables.read_all()
            return {}
        start = opened.union.table_rows(element.number).start
        expected, incomplete = ExpectedTablePart(opened.union, part.rows), 0
        expected.failures = {row - start: [failure] for row, _, failure in part.failures}
        for some in part.galaxies:
            expected.add(some.rows - start, some.samples)
            incomplete += len(some.rows) * (len(some.held) < len(opened.union.ensemble.samples))
        return {
            "table parts": 1,
            "predicted": len(expected.predicted),
            "failed": len(expected.failures),
            "incomplete": incomplete,
            "table files": tables.compare(expected),
        }

    def summary(self, manifest: dict[str, Any], counts: Counter[str], findings: Findings) -> str:
        """Compare the manifest's counts with the sums over all elements, if all table parts could be read.

        Returns:
            The line for an aggregate in which nothing is wrong.
        """
        if self.opened is None or counts["table parts"] < self.opened.union.table_parts:
            return ""
        right = {f"rows_{name}": counts[name] for name in ("predicted", "failed", "incomplete")}
        manifests.compare_entries(manifest, right, manifests.FOUND, findings)
        return (
            f"{self.output}: {self.opened.union.rows:,} rows of {len(self.sources)} sources = "
            f"{counts['predicted']:,} predicted + {counts['failed']:,} failed; "
            f"{counts['part files']:,} parts with {counts['part rows']:,} rows of samples and "
            f"{counts['table files']:,} files of tables are as they should be"
        )
