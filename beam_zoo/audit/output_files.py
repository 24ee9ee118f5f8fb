"""The files of an output, and those that its manifest lists, by the table part that they belong to."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from beam_zoo.audit.findings import LINES_OF_A_KIND, Findings
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.storage import files, layout
from beam_zoo.storage.layout import FAILURES, MANIFEST, TABLES, part_name, part_number, table_file

TablePartOf = Callable[[str], int | None]
"""Gives the table part of a path below the output, or None for a file that cannot be there."""


def names_in(output: str, folder: str) -> list[str]:
    """Names in a folder of the output, without left-overs: names that begin with `.` or `_`."""
    try:
        return [name for name in files.names(os.path.join(output, folder)) if name[0] not in "._"]
    except NotADirectoryError:
        return []


def check_output_folder(output: str, findings: Findings) -> None:
    """Find names in the output's own folder that this program does not write."""
    known = {*TABLES, layout.SAMPLES, layout.REPRESENTATIONS, MANIFEST}
    foreign = [name for name in names_in(output, "") if name not in known]
    for name in foreign[:LINES_OF_A_KIND]:
        findings.add(name, "does not belong there")
    if len(foreign) > LINES_OF_A_KIND:
        findings.add(".", f"... and {len(foreign) - LINES_OF_A_KIND:,} more like this")


def files_by_table_part(
    output: str, folders: Iterable[str], table_part_of: TablePartOf, findings: Findings
) -> dict[int, list[str]]:
    """Paths of the files in these folders, in the order of their numbers; foreign names are findings."""
    found: dict[int, list[str]] = {}
    for folder in folders:
        foreign = []
        for name in sorted(names_in(output, folder), key=lambda name: part_number(name) or (-1, 0)):
            number = table_part_of(f"{folder}/{name}")
            if number is None:
                foreign.append(name)
            else:
                found.setdefault(number, []).append(f"{folder}/{name}")
        findings.some(folder, (f"{name} does not belong there" for name in foreign))
    return found


def listed_by_table_part(
    content: Any, keys: Iterable[str], table_part_of: TablePartOf, findings: Findings, who: str = ""
) -> dict[int, dict[str, dict[str, Any]]]:
    """The manifest's entries of files, by path; entries that cannot be right are findings.

    Args:
        content: the manifest, or its entry of a source.
        keys: of the lists of files.
        table_part_of: gives the table part of a file.
        findings: takes what is wrong with the lists.
        who: begins a line, where the lists are those of a source.
    """
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for key in keys:
        entries = content.get(key)
        if not isinstance(entries, list):
            findings.add(MANIFEST, f"{who}has no list {key!r}")
            continue
        for entry in entries:
            name = entry.get("name") if isinstance(entry, dict) else None
            number = table_part_of(name) if isinstance(name, str) else None
            if not isinstance(name, str):
                findings.add(MANIFEST, f"{who}has an entry of {key!r} without a name: {entry!r}")
            elif number is None:
                findings.add(MANIFEST, f"{who}lists {name!r}, which is no file of this plan")
            elif name in found.setdefault(number, {}):
                findings.add(MANIFEST, f"{who}lists {name!r} twice")
            else:
                found[number][name] = entry
    return found


def table_part_of_run(plan: Plan) -> TablePartOf:
    """Gives the table part of a run's stored part or part of a table."""
    of_table = table_part_of_tables(TABLES if plan.command == "predict" else (FAILURES,), plan.table_parts)
    folders = parts.folders(plan)

    def table_part_of(path: str) -> int | None:
        folder, name = os.path.split(path)
        if folder not in folders:
            return of_table(path)
        number, attempt = part_number(name) or (plan.snippets, 0)
        right = number < plan.snippets and name == part_name(number, attempt)
        return plan.table_part(number) if right else None

    return table_part_of


def table_part_of_tables(tables: tuple[str, ...], table_parts: int) -> TablePartOf:
    """Gives the number of a part of one of these tables."""

    def table_part_of(path: str) -> int | None:
        folder, name = os.path.split(path)
        number, _ = part_number(name) or (table_parts, 0)
        right = folder in tables and number < table_parts and path == table_file(folder, number)
        return number if right else None

    return table_part_of
