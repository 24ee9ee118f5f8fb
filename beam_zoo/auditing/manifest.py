"""The manifest, compared with the plan, with the files that are there and with the counts of all elements."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from beam_zoo.auditing.elements import Element
from beam_zoo.auditing.findings import Findings
from beam_zoo.errors import one_line
from beam_zoo.storage import files, layout
from beam_zoo.storage.layout import MANIFEST, TABLES, part_number, table_file

Types = dict[str, type | tuple[type, ...]]
FOUND = "{} were found in the parts"
OF_ALL: Types = {"versions": dict, "start": str, "end": str, "beam_options": list}
"""What every manifest has, and nothing else in the output says."""


def check_types(content: dict[str, Any], types: Types, findings: Findings, before: str = "") -> bool:
    """Whether entries of the manifest are there and of the right types; `before` begins a line."""
    right = True
    for name, kind in types.items():
        if not isinstance(content.get(name), kind) or isinstance(content[name], bool):
            value = f"is {one_line(repr(content[name]), 80)}" if name in content else "is missing"
            findings.add(MANIFEST, f"{before}{name} {value}")
            right = False
    return right


def compare_entries(
    found: dict[str, Any], right: dict[str, Any], says: str, findings: Findings, before: str = ""
) -> None:
    """Compare entries of the manifest with the right ones; `says` is of what says so: `the plan says {}`."""
    for name, value in right.items():
        if json.dumps(found.get(name), sort_keys=True) != json.dumps(value, sort_keys=True):
            ours, theirs = (one_line(repr(each), 80) for each in (found.get(name), value))
            findings.add(MANIFEST, f"{before}{name} is {ours}, and {says.format(theirs)}")


def compare_members(found: Any, right: list[dict[str, Any]], findings: Findings) -> None:
    """Compare the manifest's members with what it should say of each."""
    there = found if isinstance(found, list) else []
    names = [member.get("name") if isinstance(member, dict) else None for member in there]
    if names != [member["name"] for member in right]:
        findings.add(MANIFEST, f"members are {names}, and the plan's are {[m['name'] for m in right]}")
        return
    for ours, theirs in zip(there, right, strict=True):
        of = f" of member {theirs['name']}"
        every = {key + of: theirs.get(key) for key in sorted({*ours, *theirs})}
        compare_entries({key + of: ours[key] for key in ours}, every, "the plan says {}", findings)


def names_in(output: str, folder: str) -> list[str]:
    """Names in a folder of the output, without left-overs: names that begin with `.` or `_`."""
    try:
        return [name for name in files.names(os.path.join(output, folder)) if name[0] not in "._"]
    except NotADirectoryError:
        return []


def check_output_folder(output: str, findings: Findings) -> None:
    """Find names in the output's own folder that this program does not write."""
    for name in names_in(output, ""):
        if name not in (*TABLES, layout.SAMPLES, layout.REPRESENTATIONS, MANIFEST):
            findings.add(name, "does not belong there")


def find_elements(
    output: str,
    folders: Iterable[str],
    lists: dict[str, Any],
    numbers: Iterable[int],
    table_part_of: Callable[[str], int | None],
    findings: Findings,
    source: int | None = None,
) -> list[Element]:
    """The table parts, with their files that are there and those that the manifest lists.

    Args:
        output: folder of the output, or of a source.
        folders: in which the files are.
        lists: the manifest's lists of files, by name.
        numbers: of the table parts; others are added if they have files.
        table_part_of: gives the table part of a file, or None for one that cannot be there.
        findings: takes what is wrong with names and lists.
        source: see `Element`.
    """
    who, above = ("", "") if source is None else (f"source {source + 1}: ", output)
    there: defaultdict[int | None, set[str]] = defaultdict(set)
    listed: defaultdict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for folder in folders:
        for name in names_in(output, folder):
            there[table_part_of(f"{folder}/{name}")].add(f"{folder}/{name}")
        foreign = (os.path.basename(file) for file in sorted(there.pop(None, ())))
        findings.some(os.path.join(above, folder), (f"{name} does not belong there" for name in foreign))
    for key, entries in lists.items():
        if not isinstance(entries, list):
            findings.add(MANIFEST, f"{who}has no list {key!r}")
            continue
        for entry in entries:
            path = entry.get("name") if isinstance(entry, dict) else None
            number = table_part_of(path) if isinstance(path, str) else None
            if path is None or number is None:
                findings.add(MANIFEST, f"{who}lists {path or entry!r}, which is no file of this plan")
            elif path in listed[number]:
                findings.add(MANIFEST, f"{who}lists {path!r} twice")
            else:
                listed[number][path] = entry
    every = sorted({*numbers, *listed, *(number for number in there if number is not None)})
    return [Element(n, frozenset(there[n]), listed[n], source, above) for n in every]


def table_number(path: str, tables: Iterable[str], table_parts: int) -> int | None:
    """The number of a part of one of these tables, or None for another path."""
    folder, name = os.path.split(path)
    number, _ = part_number(name) or (table_parts, 0)
    right = folder in tables and number < table_parts and path == table_file(folder, number)
    return number if right else None
