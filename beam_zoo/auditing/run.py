"""The audit of a run: the files of its plan, and each table part with its stored parts."""

import dataclasses
import functools
import os
from collections import defaultdict
from typing import Any

import numpy as np

from beam_zoo.auditing.elements import Element, NumbersByName
from beam_zoo.auditing.expected import Definitions, ExpectedTablePart
from beam_zoo.auditing.findings import Findings
from beam_zoo.auditing.manifest import (
    OF_ALL,
    check_output_folder,
    check_types,
    compare_counts,
    compare_entries,
    compare_members,
    find_elements,
    names_in,
    table_number,
)
from beam_zoo.auditing.plan_files import check_plan_files
from beam_zoo.auditing.stored_parts import StoredPartChecks
from beam_zoo.auditing.table_files import TableFiles
from beam_zoo.catalogue.read import ID
from beam_zoo.images.failure import Failure
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
        plan = self.plan
        right = {
            "command": plan.command,
            "rows_in": plan.rows,
            "seed": plan.seed,
            "fingerprint": plan.fingerprint,
            "tables_fingerprint": plan.tables_fingerprint,
        }
        compare_entries(manifest, right, "the plan says", findings)
        compare_members(manifest.get("members"), plan.members, findings)
        # `finish` writes neither options nor device.
        either = "options" in manifest or "device" in manifest
        types = {**OF_ALL, "galaxies_per_second": (int, float)}
        check_types(manifest, types | ({"options": dict, "device": str} if either else {}), findings)
        check_output_folder(self.output, findings)
        members = [member.name for member in plan.members] if plan.command == "represent" else []
        foreign = [name for name in names_in(self.output, layout.REPRESENTATIONS) if name not in members]
        findings.some(layout.REPRESENTATIONS, (f"{name} does not belong there" for name in foreign))
        return self.elements(manifest, ("tables", "parts"), findings)

    def elements(self, lists: dict[str, Any], names: tuple[str, ...], findings: Findings) -> list[Element]:
        """The elements.

        Args:
            lists: has the manifest's lists of files.
            names: of these lists.
            findings: takes what is wrong with them, and names of files that cannot be there.
        """
        folders = parts.folders(self.plan)
        if self.source is None:  # what a run does not write must be empty
            folders = list(dict.fromkeys([*folders, layout.SAMPLES, *TABLES]))
        some = {name: lists.get(name) for name in names}
        numbers = range(self.plan.table_parts)
        found = find_elements(self.output, folders, some, numbers, self._table_part_of, findings, self.source)
        return [Element(None, source=self.source, folder=found[0].folder), *found]

    def _table_part_of(self, path: str) -> int | None:
        plan, (folder, name) = self.plan, os.path.split(path)
        if folder in parts.folders(plan):
            number, attempt = layout.part_number(name) or (plan.snippets, 0)
            right = number < plan.snippets and name == layout.part_name(number, attempt)
            return plan.table_part(number) if right else None
        tables = TABLES if plan.command == "predict" else (FAILURES,)
        return None if self.source is not None else table_number(path, tables, plan.table_parts)

    def check(self, element: Element, findings: Findings) -> NumbersByName:
        """Check the plan's files, or a table part and the stored parts that it is made of; returns counts."""
        if element.number is None:
            check_plan_files(self.plan, self.output, findings)
            return {}
        counts: NumbersByName = {}
        expected = self._read(element, element.number, findings, counts)
        if expected is not None and self.source is None:
            tables = TableFiles(self.output, element, findings)
            counts["table files"] = tables.compare(self.plan, self._definitions.questions, expected)
        return counts

    @functools.cached_property
    def _definitions(self) -> Definitions:
        return Definitions(self.plan)

    def _read(
        self, element: Element, number: int, findings: Findings, counts: NumbersByName
    ) -> ExpectedTablePart | None:
        """Read and check the stored parts of a table part, snippet by snippet."""
        plan, within = self.plan, self.plan.table_rows(number)
        rows = None
        with findings.unreadable(element.name, "cannot be checked: its rows of _plan"):
            rows = plan.read_table_rows(self.output, number)
            if rows.num_rows != len(within):
                raise ValueError(f"they are {rows.num_rows:,}")
        if rows is None or rows.num_rows != len(within):
            return None
        checks = StoredPartChecks(plan, self.output, element, rows, findings)
        ids = rows.column(ID).to_pylist()
        predicted, numbers = [np.zeros(0, np.int64)], [np.zeros((0, len(plan.outputs), 4))]
        failures: dict[int, list[Failure]] = {}
        unknown: set[str] = set()
        for snippet in map(plan.snippet, plan.table_snippets(number)):
            stored, begin = checks.read(snippet), snippet.start - within.start
            predicted.append(begin + np.array(sorted(stored.where), np.int64))
            if stored.complete:
                failed = sorted(stored.failures.keys() - stored.where.keys())
                failures |= {begin + offset: stored.failures[offset] for offset in failed}
            else:  # a part that cannot be read may have the galaxy
                unknown |= set(ids[begin : begin + snippet.size])
            if stored.samples and self.source is None:
                offsets, samples = (np.concatenate(each) for each in zip(*stored.samples, strict=True))
                order = np.argsort(offsets, kind="stable")
                numbers.append(self._definitions.numbers(begin + offsets[order], samples[order]))
        counts |= {"predicted": sum(map(len, predicted)), "failed": len(failures), **checks.counts}
        return ExpectedTablePart(rows, np.concatenate(predicted), failures, unknown, np.concatenate(numbers))

    def check_counts(self, manifest: dict[str, Any], counts: NumbersByName, findings: Findings) -> None:
        """Compare the manifest's counts, and the lengths of features, with the sums over all elements."""
        predicted, failed = counts.get("predicted", 0), counts.get("failed", 0)
        compare_counts(manifest, {"rows_predicted": predicted, "rows_failed": failed}, findings)
        reused = manifest.get("rows_reused")
        if not isinstance(reused, int) or isinstance(reused, bool) or not 0 <= reused <= predicted:
            findings.add(MANIFEST, f"rows_reused is {reused!r}, and {predicted:,} were predicted")
        lengths = defaultdict(list)
        for kind, *of in (name.split("\t") for name in counts):
            if kind == "features":
                lengths[of[0]].append(of[1])
        for member, found in sorted(lengths.items()):
            if len(found) > 1:
                text = f"features have lengths {', '.join(sorted(found))}"
                findings.add(f"{layout.REPRESENTATIONS}/{member}", text)

    def healthy(self, counts: NumbersByName) -> str:
        """The line for an output in which nothing is wrong."""
        number = {name: f"{count:,}" for name, count in counts.items()}
        what = "samples" if self.plan.command == "predict" else "features"
        return (
            f"{self.output}: {self.plan.rows:,} rows of the plan = {number['predicted']} predicted + "
            f"{number['failed']} failed; {number['part files']} parts with {number['part rows']} rows of "
            f"{what} and {number['table files']} files of tables are as they should be"
        )
