"""The audit of a run: the files of its plan, and each table part with its stored parts."""

import dataclasses
import os
from collections import Counter
from typing import Any

import pyarrow as pa

from beam_zoo.auditing import manifest as manifests
from beam_zoo.auditing.elements import Element, NumbersByName
from beam_zoo.auditing.expected import ExpectedTablePart
from beam_zoo.auditing.findings import Findings
from beam_zoo.auditing.plan_files import check_plan_files
from beam_zoo.auditing.stored_parts import read_stored_parts
from beam_zoo.auditing.table_files import TableFiles
from beam_zoo.members.member import to_json
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.storage import layout
from beam_zoo.storage.layout import FAILURES, MANIFEST, TABLES


@dataclasses.dataclass(frozen=True)
class RunAudit:
    """The audit of an output of `predict` or `represent`, or of what a source of an aggregate stores.

    Memory is that of a stored part and of a table part's numbers.

    Attributes:
        plan: the plan of the run.
        output: its folder.
        source: number of the source, whose tables are not checked, or None for an output.
    """

    plan: Plan
    output: str
    source: int | None = None

    def open(self, manifest: dict[str, Any], findings: Findings) -> list[Element]:
        """Check the manifest of an output, and find the elements."""
        plan, names = self.plan, ("command", "seed", "fingerprint", "tables_fingerprint")
        right = {"rows_in": plan.rows, **{name: getattr(plan, name) for name in names}}
        manifests.compare_entries(manifest, right, "the plan says {}", findings)
        members = [to_json(member) for member in plan.members]
        manifests.compare_members(manifest.get("members"), members, findings)
        types = {**manifests.OF_ALL, "galaxies_per_second": (int, float)}
        if "options" in manifest or "device" in manifest:  # `finish` writes neither
            types |= {"options": dict, "device": str}
        manifests.check_types(manifest, types, findings)
        folder = layout.REPRESENTATIONS
        there = (f"{folder}/{name}" for name in manifests.names_in(self.output, folder))
        foreign = (os.path.basename(path) for path in there if path not in parts.folders(plan))
        findings.some(folder, (f"{name} does not belong there" for name in foreign))
        elements = self.elements({name: manifest.get(name) for name in ("tables", "parts")}, findings)
        manifests.check_output_folder(self.output, findings)
        return elements

    def elements(self, lists: dict[str, Any], findings: Findings) -> list[Element]:
        """The elements; `lists` are the manifest's lists of files, by name."""
        folders = parts.folders(self.plan)
        if self.source is None:  # what a run does not write must be empty
            folders = list(dict.fromkeys([*folders, layout.SAMPLES, *TABLES]))
        find, numbers = manifests.find_elements, range(self.plan.table_parts)
        found = find(self.output, folders, lists, numbers, self._table_part_of, findings, self.source)
        return [Element(None, source=self.source, folder=found[0].folder), *found]

    def _table_part_of(self, path: str) -> int | None:
        plan, (folder, name) = self.plan, os.path.split(path)
        if folder in parts.folders(plan):
            number, attempt = layout.part_number(name) or (plan.snippets, 0)
            right = number < plan.snippets and name == layout.part_name(number, attempt)
            return plan.table_part(number) if right else None
        tables = TABLES if plan.command == "predict" else (FAILURES,)
        return None if self.source is not None else manifests.table_number(path, tables, plan.table_parts)

    def check(self, element: Element, findings: Findings) -> NumbersByName:
        """Check the plan's files, or a table part and the stored parts that it is made of; returns counts."""
        if element.number is None:
            check_plan_files(self.plan, self.output, findings)
            return {}
        rows = self._rows(element.name, element.number, findings)
        if rows is None:
            return {}
        expected = ExpectedTablePart(self.plan, rows)
        counts = read_stored_parts(self.plan, self.output, element, expected, findings)
        counts |= {"predicted": len(expected.predicted), "failed": len(expected.failures)}
        if self.source is None:
            counts["table files"] = TableFiles(self.output, element, findings).compare(expected)
        return counts

    def _rows(self, name: str, number: int, findings: Findings) -> pa.Table | None:
        """The plan's rows of a table part, if they can be used."""
        with findings.unreadable(name, "cannot be checked: its rows of _plan"):
            rows = self.plan.read_table_rows(self.output, number)
            if rows.num_rows == len(self.plan.table_rows(number)):
                return rows
            raise ValueError(f"they are {rows.num_rows:,}")
        return None

    def summary(self, manifest: dict[str, Any], counts: Counter[str], findings: Findings) -> str:
        """Compare the manifest's counts, and the lengths of features, with the sums over all elements.

        Returns:
            The line for an output in which nothing is wrong.
        """
        predicted, failed = counts["predicted"], counts["failed"]
        right = {"rows_predicted": predicted, "rows_failed": failed}
        manifests.compare_entries(manifest, right, manifests.FOUND, findings)
        reused = manifest.get("rows_reused")
        if not isinstance(reused, int) or isinstance(reused, bool) or not 0 <= reused <= predicted:
            findings.add(MANIFEST, f"rows_reused is {reused!r}, and {predicted:,} were predicted")
        for folder in parts.folders(self.plan):
            keys = [name.rpartition("\t") for name in counts]
            lengths = sorted(length for of, _, length in keys if of == folder)
            if len(lengths) > 1:
                findings.add(folder, f"features have lengths {', '.join(lengths)}")
        what = "samples" if self.plan.command == "predict" else "features"
        return (
            f"{self.output}: {self.plan.rows:,} rows of the plan = "
            f"{predicted:,} predicted + {failed:,} failed; "
            f"{counts['part files']:,} parts with {counts['part rows']:,} rows of "
            f"{what} and {counts['table files']:,} files of tables are as they should be"
        )
