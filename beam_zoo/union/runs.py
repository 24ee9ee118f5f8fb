"""The runs that are read as one: opens them, and checks that they are compatible."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from beam_zoo.errors import UserError, did_you_mean, near_path
from beam_zoo.members.compatible import check_compatible
from beam_zoo.members.member import Member
from beam_zoo.plan import plan_file
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.storage import layout
from beam_zoo.storage.files import absolute, exists, is_folder, is_remote


class OpenedRun(NamedTuple):
    """A run of `predict`.

    Attributes:
        plan: its plan.
        output: the folder of its output, absolute.
    """

    plan: Plan
    output: str


def open_runs(outputs: Sequence[str]) -> list[OpenedRun]:
    """Read the plan of each output of `predict`.

    Raises:
        UserError: a folder is missing, is not an output of `predict`, or is given twice.
    """
    runs: list[OpenedRun] = []
    for output in outputs:
        folder = absolute(output)
        if not is_folder(folder):
            raise UserError(f"there is no output {folder}{near_path(folder)}")
        plan = plan_file.read(folder)
        if plan is None:
            what = "an aggregate: name the runs that it was made of" if _is_aggregate(folder) else None
            raise UserError(f"{folder} is {what or 'not an output of predict: it has no plan'}")
        if plan.command != "predict":
            raise UserError(f"{folder} is an output of {plan.command}: only those of predict hold samples")
        if any(_is_same_folder(folder, run.output) for run in runs):
            raise UserError(f"the output {folder} is given twice")
        runs.append(OpenedRun(plan, folder))
    return runs


def _is_same_folder(folder: str, other: str) -> bool:
    if is_remote(folder) or is_remote(other):
        return folder == other
    return os.path.samefile(folder, other)


def _is_aggregate(folder: str) -> bool:
    has_manifest = exists(os.path.join(folder, layout.MANIFEST))
    return has_manifest and not is_folder(os.path.join(folder, layout.PLAN))


def complete_parts(plan: Plan, output: str) -> parts.Stored:
    """All stored parts of a run.

    Raises:
        UserError: snippets have no part; the line lists them.
    """
    stored = parts.stored_parts(plan, output)
    if left := parts.missing_ranges(stored, plan.snippets):
        raise UserError(f"{output} lacks the samples of --snippets {' '.join(left)}: predict them first")
    return stored


def manifest_entry(plan: Plan) -> dict[str, Any]:
    """What an aggregate's manifest says about a run, except for its folder, fingerprint and parts."""
    return {
        "rows": plan.rows,
        "members": [member.name for member in plan.members],
        "passes": list(plan.pass_numbers),
        "seed": plan.seed,
        "precision": plan.precision,
        **{
            name: getattr(plan, name)
            for name in ("compile", "fast_images", "fast_views")
            if getattr(plan, name)
        },
        "versions": plan.versions,
    }


def all_members(runs: Sequence[OpenedRun]) -> tuple[tuple[Member, ...], tuple[tuple[int, ...], ...]]:
    """The members of all runs in the order of first appearance, and the numbers of each member's passes.

    Raises:
        UserError: two different members have one name, or members cannot form an ensemble.
    """
    found: dict[str, tuple[Member, str]] = {}
    passes: dict[str, set[int]] = {}
    for plan, output in runs:
        for member in plan.members:
            first, where = found.setdefault(member.name, (member, output))
            ours, theirs = first.identity(), member.identity()
            if changed := [key for key in ours if ours[key] != theirs.get(key)]:
                raise UserError(
                    f"member {member.name} is not the same in {where} and {output}: "
                    f"another {', '.join(changed)}"
                )
            passes.setdefault(member.name, set()).update(plan.pass_numbers)
    check_compatible([(f"{member.name} of {output}", member) for member, output in found.values()])
    return tuple(member for member, _ in found.values()), tuple(tuple(sorted(passes[n])) for n in found)


def carried_fields(runs: Sequence[OpenedRun], carry: Sequence[str] | None) -> pa.Schema:
    """Names and types of the carried columns.

    Args:
        runs: the runs.
        carry: names of the columns; None for all that any run carries.

    Raises:
        UserError: no run carries a column, or two runs carry it with different types.
    """
    found: dict[str, list[tuple[pa.DataType, str]]] = {}
    for plan, output in runs:
        for field in plan.carried_schema(output):
            found.setdefault(field.name, []).append((field.type, output))
    for name in carry or ():
        if name not in found:
            valid = did_you_mean(name, found) if found else " (they carry none)"
            raise UserError(f"no run carries a column {name!r}{valid}")
        if carry and carry.count(name) > 1:
            raise UserError(f"--carry {name} is given twice")
    names = list(found) if carry is None else carry
    return pa.schema([pa.field(name, _common_type(name, found[name])) for name in names])


def _common_type(name: str, found: list[tuple[pa.DataType, str]]) -> pa.DataType:
    """The type of a carried column; a run where all values are null has the type null, which is ignored."""
    typed = [each for each in found if not pa.types.is_null(each[0])] or found
    first, where = typed[0]
    for other, output in typed[1:]:
        if other != first:
            raise UserError(
                f"column {name!r} is of type {first} in {where} and {other} in {output}: "
                "leave it out by --carry"
            )
    return first
