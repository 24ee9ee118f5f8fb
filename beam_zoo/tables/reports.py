"""The report of a table part: what is in it and what it was built from. A part without one is to be built."""

import os
from typing import Any

from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage.files import read_json, remove, size
from beam_zoo.storage.layout import report_file


def remove_reports(output: str, *numbers: int) -> None:
    """Remove the reports of table parts, which are to be built again from then on."""
    remove(*(report_path(output, number) for number in numbers))


def report_path(output: str, part: int) -> str:
    """Where the report of a table part is."""
    return os.path.join(output, report_file(part))


def read_report(output: str, part: int) -> dict[str, Any]:
    """The report of a table part that is there."""
    return read_json(report_path(output, part))


def current_report(plan: Plan, output: str, part: int, refs: list[PartRef]) -> dict[str, Any] | None:
    """The report of a table part, or None if the part is to be built.

    It is current if the part was built with these carried columns from just these stored parts, and its files
    are there.

    Args:
        plan: the plan of the run.
        output: folder of the output.
        part: number of the table part.
        refs: all stored parts of its snippets.
    """
    try:
        report = read_report(output, part)
        sizes = [size(os.path.join(output, f["name"])) == f["bytes"] for f in report["files"].values()]
    except (OSError, ValueError):
        return None
    read = {file["name"] for file in report["parts"]}
    expected = {f"{folder}/{ref.name}" for folder in parts.folders(plan) for ref in refs}
    same = report["tables"] == plan.tables_fingerprint and read == expected
    return report if same and all(sizes) else None
