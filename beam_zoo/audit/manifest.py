"""The entries of a manifest but for its lists of files: those of the plan, those that it must have, and the counts."""

from typing import Any

from beam_zoo.audit.compare import compare_entries
from beam_zoo.audit.findings import Findings
from beam_zoo.errors import one_line
from beam_zoo.storage.layout import MANIFEST, REPRESENTATIONS

Kinds = dict[str, type | tuple[type, ...]]

OF_ALL: Kinds = {"versions": dict, "start": str, "end": str, "beam_options": list}
"""What every manifest has, and nothing else in the output says."""
OF_RUNS: Kinds = {**OF_ALL, "galaxies_per_second": (int, float)}
OF_RUNS_BUT_FINISH: Kinds = {"options": dict, "device": str}
OF_AGGREGATES: Kinds = {**OF_ALL, "options": dict}


def check_kinds(content: dict[str, Any], kinds: Kinds, findings: Findings, who: str = "") -> bool:
    """Whether entries are there, and of the right types; what is wrong is found.

    Args:
        content: the manifest, or a part of it.
        kinds: of the entries.
        findings: takes the lines.
        who: begins a line, where the entries are those of a source.
    """
    wrong = [
        name
        for name, kind in kinds.items()
        if not isinstance(content.get(name), kind) or isinstance(content[name], bool)
    ]
    for name in wrong:
        value = f"is {one_line(repr(content[name]), 80)}" if name in content else "is missing"
        findings.add(MANIFEST, f"{who}{name} {value}")
    return not wrong


def check_members(right: list[dict[str, Any]], found: Any, findings: Findings) -> None:
    """Compare the manifest's members.

    Args:
        right: what they should be.
        found: what the manifest has.
        findings: takes what is wrong.
    """
    there = found if isinstance(found, list) else []
    names = [member.get("name") if isinstance(member, dict) else None for member in there]
    if names != [member["name"] for member in right]:
        findings.add(MANIFEST, f"members are {names}, and the plan's are {[m['name'] for m in right]}")
        return
    for ours, theirs in zip(there, right, strict=True):
        every = {key: theirs.get(key) for key in sorted({*ours, *theirs})}
        compare_entries(ours, every, "and the plan says", findings, after=f" of member {theirs['name']}")


def check_counts(
    manifest: dict[str, Any], names: dict[str, str], counts: dict[str, int], findings: Findings
) -> None:
    """Compare the manifest's counts of galaxies, and the lengths of features, with what all elements found.

    Args:
        manifest: the output's manifest.
        names: the manifest's counts -> those of the elements.
        counts: sums over the elements.
        findings: takes what is wrong.
    """
    for name, key in names.items():
        found = manifest.get(name)
        if found != counts.get(key, 0) or isinstance(found, bool):
            findings.add(MANIFEST, f"{name} is {found!r}, and {counts.get(key, 0):,} were found in the parts")
    lengths: dict[str, list[str]] = {}
    for name in counts:
        if name.startswith("features\t"):
            _, member, length = name.split("\t")
            lengths.setdefault(member, []).append(length)
    for member, found_lengths in sorted(lengths.items()):
        if len(found_lengths) > 1:
            text = f"features have lengths {', '.join(sorted(found_lengths))}"
            findings.add(f"{REPRESENTATIONS}/{member}", text)
