"""The audit of the plan: its rows are those of its fingerprint; the manifest says what the plan says."""

import json
import os
from typing import Any

import pyarrow.parquet as pq

from beam_zoo.audit.audit import Findings, listing
from beam_zoo.catalogue.check import Checker
from beam_zoo.catalogue.read import Catalogue
from beam_zoo.errors import UserError, one_line
from beam_zoo.members.member import to_json
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.rows import CarriedDigest, rows_file
from beam_zoo.storage.files import for_arrow, is_remote, read_file, sha256
from beam_zoo.storage.layout import MANIFEST, REPRESENTATIONS

_KINDS: dict[str, type | tuple[type, ...]] = {
    "versions": dict,
    "start": str,
    "end": str,
    "beam_options": list,
}
"""What every manifest has, and nothing else in the output tells."""
_OF_RUNS: dict[str, type | tuple[type, ...]] = {**_KINDS, "galaxies_per_second": (int, float)}
_OF_AGGREGATES: dict[str, type | tuple[type, ...]] = {**_KINDS, "options": dict}
ROWS_FOUND = {"rows_predicted": "predicted", "rows_failed": "failed"}


def check_rows(plan: Plan, output: str, findings: Findings) -> None:
    """The plan's rows, streaming: how they are cut, their number, that ids are unique, and their fingerprint.

    Args:
        plan: the plan of the output.
        output: its folder.
        findings: takes what is wrong.
    """
    rows = _inside(plan.rows_folder(output), output)
    for folder in [rows, *([_inside(plan.carried_folder(output), output)] if plan.carried else [])]:
        _check_cut(plan, output, folder, findings)
    _check_carried(plan, output, findings)
    _check_staged(plan, output, findings)
    names = set(listing(output, rows))
    files = [f"{part:06d}.parquet" for part in range(plan.table_parts)]
    there = tuple(os.path.join(output, rows, name) for name in files if name in names)
    catalogue = Catalogue(rows, there, "parquet", output)
    # Where images lie was decided when the plan was made, perhaps on another machine.
    checker = Checker(output, root_given=False, allow_outside=True)
    try:
        for batch in catalogue.batches():
            checker.add(batch)
        digest = checker.finish(catalogue, None)
    except UserError as error:
        findings.add(rows, str(error).replace(output + os.sep, ""))
        return
    if checker.rows != plan.rows:
        findings.add(rows, f"holds {checker.rows:,} rows, and plan.json says {plan.rows:,}")
    if digest != plan.catalogue["sha256"]:
        wanted = plan.catalogue["sha256"]
        findings.add(
            rows, f"ids and locations have SHA-256 {digest[:12]}..., and plan.json says {wanted[:12]}..."
        )


def _inside(path: str, output: str) -> str:
    return path.removeprefix(output + os.sep)


def _check_cut(plan: Plan, output: str, folder: str, findings: Findings) -> None:
    """A file a table part, a row group a snippet: workers read just one of these."""
    wanted = [f"{part:06d}.parquet" for part in range(plan.table_parts)]
    there = set(listing(output, folder))
    findings.some(folder, (f"{name} is missing" for name in wanted if name not in there))
    findings.some(folder, (f"{name} does not belong there" for name in sorted(there - set(wanted))))
    for part, name in enumerate(wanted):
        if name not in there:
            continue
        try:
            metadata = pq.read_metadata(for_arrow(os.path.join(output, folder, name)))
        except Exception as error:
            findings.add(f"{folder}/{name}", f"cannot be read ({one_line(error, 200)})")
            continue
        found = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        first = part * plan.snippets_per_table
        snippets = range(first, min(plan.snippets, first + plan.snippets_per_table))
        right = [len(plan.snippet(number).offsets) for number in snippets]
        if found != right:
            findings.add(
                f"{folder}/{name}",
                f"holds {sum(found):,} rows in {len(found):,} snippets, and should hold "
                f"{sum(right):,} in {len(right):,}" + (", cut elsewhere" if sum(found) == sum(right) else ""),
            )


def _check_carried(plan: Plan, output: str, findings: Findings) -> None:
    """The values of the carried columns, streaming: their digest is that of plan.json."""
    if not plan.carried:
        return
    folder = _inside(plan.carried_folder(output), output)
    digest = CarriedDigest(plan.carried, plan.snippet_size)
    try:
        for part in range(plan.table_parts):
            # Not by ParquetFile, which refuses dictionaries inside of lists where there is more than one row group.
            table = pq.read_table(for_arrow(rows_file(plan.carried_folder(output), part)))
            for batch in table.to_batches():
                digest.add(batch)
        found = digest.finish()
    except Exception as error:
        text = one_line(error, 200).replace(output + os.sep, "")
        findings.add(folder, f"carried columns cannot be read ({text})")
        return
    if found != plan.carried_digest:
        findings.add(
            folder,
            f"carried columns have SHA-256 {found[:12]}..., and plan.json says {plan.carried_digest[:12]}...",
        )


def _check_staged(plan: Plan, output: str, findings: Findings) -> None:
    """Checkpoints of the hub lie below the plan; others are not part of the output."""
    for member in plan.members:
        if is_remote(member.path) or os.path.isabs(member.path):
            continue
        try:
            found = sha256(read_file(os.path.join(output, member.path)))
        except Exception as error:
            findings.add(
                member.path, f"checkpoint of member {member.name} cannot be read ({one_line(error, 200)})"
            )
            continue
        if found != member.sha256:
            findings.add(member.path, f"is not the checkpoint of member {member.name}: SHA-256 {found}")


def check_usable(plan: Plan) -> None:
    """Whether a plan can be followed: what a damaged plan.json lacks would show when the plan is used.

    Args:
        plan: as it was read.

    Raises:
        Exception: of any kind, if it cannot.
    """
    for name in ("rows", "snippet_size", "passes", "first_pass", "seed"):
        value, least = getattr(plan, name), int(name != "first_pass")
        if not isinstance(value, int) or isinstance(value, bool) or (name != "seed" and value < least):
            raise ValueError(f"{name} is {one_line(repr(value), 80)}")
    if not all(isinstance(name, str) for name in (*plan.carried, plan.carried_digest)):
        raise TypeError("carried columns or their digest are no texts")
    if plan.command not in ("predict", "represent"):
        raise ValueError(f"command is {one_line(repr(plan.command), 80)}")
    if not isinstance(plan.catalogue["sha256"], str):
        raise TypeError("the catalogue's sha256 is no text")
    if not (plan.table_parts and plan.kind and plan.fingerprint and plan.tables_fingerprint):
        raise ValueError("it lacks what a run is made of")


def check_keys(manifest: dict[str, Any], findings: Findings) -> None:
    """What a manifest must have, and nothing else in the output tells.

    Args:
        manifest: the output's manifest.
        findings: takes what is missing, or of another kind.
    """
    kinds = _OF_AGGREGATES if "sources" in manifest else _OF_RUNS
    if kinds is _OF_RUNS and ("options" in manifest or "device" in manifest):  # `finish` writes neither
        kinds = {**kinds, "options": dict, "device": str}
    for name, kind in kinds.items():
        value = manifest.get(name)
        if name not in manifest:
            findings.add(MANIFEST, f"{name} is missing")
        elif not isinstance(value, kind) or isinstance(value, bool):
            findings.add(MANIFEST, f"{name} is {one_line(repr(value), 80)}")


def check_manifest(plan: Plan, manifest: dict[str, Any], findings: Findings) -> None:
    """What can be said of a manifest without reading anything else.

    Args:
        plan: the plan of the output.
        manifest: the content of its `manifest.json`.
        findings: takes what is wrong.
    """
    said: dict[str, Any] = {
        "command": plan.command,
        "rows_in": plan.rows,
        "seed": plan.seed,
        "fingerprint": plan.fingerprint,
        "tables_fingerprint": plan.tables_fingerprint,
    }
    for name, value in said.items():
        if manifest.get(name) != value:
            findings.add(MANIFEST, f"{name} is {manifest.get(name)!r}, and the plan says {value!r}")
    check_members([to_json(member) for member in plan.members], manifest.get("members"), findings)
    check_counts(manifest, "rows_reused", plan.rows, findings)
    check_keys(manifest, findings)


def check_counts(manifest: dict[str, Any], some: str, rows: int, findings: Findings) -> None:
    """The manifest's counts against each other.

    Args:
        manifest: the output's manifest.
        some: name of the count that is of some of the rows that were predicted.
        rows: number of rows.
        findings: takes what is wrong.
    """
    counts = {name: manifest.get(name) for name in ("rows_predicted", "rows_failed", some)}
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            findings.add(MANIFEST, f"{name} is {count!r}")
            return
    predicted, failed, fewer = (int(count or 0) for count in counts.values())
    if predicted + failed != rows:
        findings.add(
            MANIFEST,
            f"rows_predicted {predicted:,} and rows_failed {failed:,} are not the {rows:,} rows of the plan",
        )
    if fewer > predicted:
        findings.add(MANIFEST, f"{some} is {fewer:,}, and rows_predicted {predicted:,}")


def check_members(right: list[dict[str, Any]], found: Any, findings: Findings) -> None:
    """The manifest's members.

    Args:
        right: what they should be.
        found: what the manifest has.
        findings: takes what is wrong.
    """
    right = json.loads(json.dumps(right))
    if found == right:
        return
    there = found if isinstance(found, list) else []
    names = [member.get("name") for member in there if isinstance(member, dict)]
    if len(names) != len(there) or names != [member["name"] for member in right]:
        findings.add(MANIFEST, f"members are {names}, and the plan's are {[m['name'] for m in right]}")
        return
    for ours, theirs in zip(there, right, strict=True):
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                values = [one_line(repr(m.get(key)), 80) for m in (ours, theirs)]
                findings.add(
                    MANIFEST,
                    f"{key} of member {theirs['name']} is {values[0]}, and the plan says {values[1]}",
                )


def check_totals(
    manifest: dict[str, Any],
    counts: dict[str, int],
    elements: int,
    findings: Findings,
    names: dict[str, str] = ROWS_FOUND,
) -> None:
    """What all elements found together, against the manifest.

    Args:
        manifest: the output's manifest.
        counts: sums over the elements.
        elements: number of them.
        findings: takes what is wrong.
        names: the manifest's counts -> those of the elements.
    """
    if counts.get("elements", 0) != elements:
        findings.add("audit", f"{counts.get('elements', 0):,} of {elements:,} checks came back: run it again")
    for name, key in names.items():
        if manifest.get(name) != counts.get(key, 0):
            findings.add(
                MANIFEST,
                f"{name} is {manifest.get(name)!r}, and {counts.get(key, 0):,} were found in the parts",
            )
    lengths: dict[str, list[str]] = {}
    for name in counts:
        if name.startswith("features\t"):
            _, member, length = name.split("\t")
            lengths.setdefault(member, []).append(length)
    for member, found in sorted(lengths.items()):
        if len(found) > 1:
            findings.add(f"{REPRESENTATIONS}/{member}", f"features have lengths {', '.join(sorted(found))}")
