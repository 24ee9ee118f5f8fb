"""The audit of a run: the files of its plan, and each table part with the stored parts that it was made of."""

import functools
import os
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
    names_in,
    table_part_of_run,
)
from beam_zoo.audit.plan_files import check_plan_files
from beam_zoo.audit.stored_parts import StoredPartChecks
from beam_zoo.audit.table_files import TableChecks
from beam_zoo.catalogue.read import ID
from beam_zoo.errors import one_line
from beam_zoo.images.failure import Failure
from beam_zoo.members.member import to_json
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.storage import layout
from beam_zoo.storage.layout import MANIFEST, TABLES

COUNTS = {"rows_predicted": "predicted", "rows_failed": "failed"}
"""Counts of the manifest -> counts of the elements."""


class RunAudit:
    """The audit of an output of `predict` or `represent`.

    Args:
        plan: its plan.
        output: its folder.
        manifest: the content of its manifest.

    Attributes:
        elements: what is to be checked.
    """

    def __init__(self, plan: Plan, output: str, manifest: dict[str, Any], findings: Findings) -> None:
        self._plan, self._output, self._manifest = plan, output, manifest
        self._check_manifest(findings)
        check_output_folder(output, findings)
        members = [member.name for member in plan.members] if plan.command == "represent" else []
        others = [name for name in names_in(output, layout.REPRESENTATIONS) if name not in members]
        findings.some(layout.REPRESENTATIONS, (f"{name} does not belong there" for name in others))
        # Folders that this command does not write must be empty.
        folders = dict.fromkeys([*parts.folders(plan), layout.SAMPLES, *TABLES])
        table_part_of = table_part_of_run(plan)
        files = files_by_table_part(output, folders, table_part_of, findings)
        listed = listed_by_table_part(manifest, ("tables", "parts"), table_part_of, findings)
        self.elements = [
            Element(None),
            *(Element(n, tuple(files.get(n, ())), listed.get(n, {})) for n in range(plan.table_parts)),
        ]

    @property
    def make_checks(self) -> Callable[[], Checks]:
        """Makes the checks of the elements, in a worker."""
        return functools.partial(RunChecks, self._plan, self._output)

    def _check_manifest(self, findings: Findings) -> None:
        plan, manifest = self._plan, self._manifest
        right = {
            "command": plan.command,
            "rows_in": plan.rows,
            "seed": plan.seed,
            "fingerprint": plan.fingerprint,
            "tables_fingerprint": plan.tables_fingerprint,
        }
        compare_entries(manifest, right, "and the plan says", findings)
        manifests.check_members(
            [to_json(member) for member in plan.members], manifest.get("members"), findings
        )
        # `finish` writes neither options nor device.
        either = "options" in manifest or "device" in manifest
        kinds = {**manifests.OF_RUNS, **(manifests.OF_RUNS_BUT_FINISH if either else {})}
        manifests.check_kinds(manifest, kinds, findings)

    def check_counts(self, counts: dict[str, int], findings: Findings) -> None:
        """Compare the manifest's counts with the sums over all elements."""
        manifests.check_counts(self._manifest, COUNTS, counts, findings)
        reused, predicted = self._manifest.get("rows_reused"), counts.get("predicted", 0)
        if not isinstance(reused, int) or isinstance(reused, bool) or not 0 <= reused <= predicted:
            findings.add(MANIFEST, f"rows_reused is {reused!r}, and {predicted:,} were predicted")

    def healthy(self, counts: dict[str, int]) -> str:
        """The line for an output in which nothing is wrong."""
        what = "samples" if self._plan.command == "predict" else "features"
        return (
            f"{self._output}: {self._plan.rows:,} rows of the plan = {counts['predicted']:,} predicted + "
            f"{counts['failed']:,} failed; {counts['part files']:,} parts with {counts['part rows']:,} rows of {what} "
            f"and {counts['table files']:,} files of tables are as they should be"
        )


class RunChecks:
    """Checks of a run's elements; memory is that of a stored part and of a table part's numbers.

    Args:
        plan: the plan of the run.
        output: its folder.
        tables: whether the tables are checked too, or only what is stored.
    """

    def __init__(self, plan: Plan, output: str, tables: bool = True) -> None:
        self._plan, self._output, self._with_tables = plan, output, tables
        self._definitions = Definitions(plan)
        self._tables = TableChecks(plan, output, self._definitions)

    def check(self, element: Element, findings: Findings) -> dict[str, int]:
        """Check the plan's files, or a table part and the stored parts that it is made of; returns counts."""
        if element.number is None:
            check_plan_files(self._plan, self._output, findings)
            return {}
        counts: dict[str, int] = {}
        expected = self._read(element, element.number, findings, counts)
        if expected is not None and self._with_tables:
            counts["table files"] = self._tables.check(element, expected, findings)
        return counts

    def _read(
        self, element: Element, number: int, findings: Findings, counts: dict[str, int]
    ) -> ExpectedTablePart | None:
        """Read and check the stored parts of a table part, snippet by snippet."""
        plan, within = self._plan, self._plan.table_rows(number)
        try:
            rows = plan.read_table_rows(self._output, number)
            if rows.num_rows != len(within):
                raise ValueError(f"they are {rows.num_rows:,}")
        except Exception as error:
            text = one_line(error, 300).replace(self._output + os.sep, "")
            findings.add(element.name, f"cannot be checked: its rows of _plan ({text})")
            return None
        checks = StoredPartChecks(plan, self._output, element, rows, findings)
        ids = rows.column(ID).to_pylist()
        predicted, numbers = [np.zeros(0, np.int64)], [np.zeros((0, len(plan.outputs), 4))]
        failures: dict[int, list[Failure]] = {}
        unknown: set[str] = set()
        for snippet in map(plan.snippet, plan.table_snippets(number)):
            stored, begin = checks.read(snippet), snippet.start - within.start
            if stored.complete:
                some = {
                    begin + o: stored.failures[o]
                    for o in sorted(stored.failures.keys() - stored.where.keys())
                }
                failures |= some
            else:  # a part that cannot be read may have the galaxy
                unknown |= set(ids[begin : begin + snippet.size])
            predicted.append(begin + np.array(sorted(stored.where), np.int64))
            if stored.samples and self._with_tables:
                offsets, samples = (np.concatenate(each) for each in zip(*stored.samples, strict=True))
                order = np.argsort(offsets, kind="stable")
                numbers.append(self._definitions.numbers(begin + offsets[order], samples[order]))
        expected = ExpectedTablePart(
            rows, np.concatenate(predicted), failures, unknown, np.concatenate(numbers)
        )
        counts |= {"predicted": len(expected.predicted), "failed": len(failures), **checks.counts}
        return expected
