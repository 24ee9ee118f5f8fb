"""Whether several runs go together, and what they are together."""

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beam_zoo.catalogue.read import ID
from beam_zoo.errors import UserError, did_you_mean, near_path
from beam_zoo.members.compatible import check_compatible
from beam_zoo.members.member import Member
from beam_zoo.plan import plan_file
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage import layout
from beam_zoo.storage.files import absolute, exists, is_folder, is_remote
from beam_zoo.storage.layout import MANIFEST
from beam_zoo.union.join import allocate_array
from beam_zoo.union.union import Source, Union

Runs = list[tuple[Plan, str]]


def open_runs(outputs: Sequence[str]) -> Runs:
    """Plan and folder of every output of `predict`.

    Raises:
        UserError: there is none, it is one of another command, or it is given twice.
    """
    runs: Runs = []
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
        if any(_same(folder, other) for _, other in runs):
            raise UserError(f"the output {folder} is given twice")
        runs.append((plan, folder))
    return runs


def _same(folder: str, other: str) -> bool:
    if is_remote(folder) or is_remote(other):
        return folder == other
    return os.path.samefile(folder, other)


def _is_aggregate(folder: str) -> bool:
    return exists(os.path.join(folder, MANIFEST)) and not is_folder(os.path.join(folder, layout.PLAN))


def all_members(runs: Runs) -> tuple[tuple[Member, ...], tuple[tuple[int, ...], ...]]:
    """The members of all runs in the order of first appearance, and the passes of each.

    Raises:
        UserError: one name stands for two different members, or members do not go together.
    """
    found: dict[str, tuple[Member, str]] = {}
    passes: dict[str, set[int]] = {}
    for plan, output in runs:
        for member in plan.members:
            first, where = found.setdefault(member.name, (member, output))
            ours, theirs = first.identity(), member.identity()
            if changed := [key for key in ours if ours[key] != theirs.get(key)]:
                raise UserError(
                    f"member {member.name} is not the same in {where} and {output}: another {', '.join(changed)}"
                )
            passes.setdefault(member.name, set()).update(plan.pass_numbers)
    check_compatible([(f"{member.name} of {output}", member) for member, output in found.values()])
    return tuple(member for member, _ in found.values()), tuple(tuple(sorted(passes[n])) for n in found)


def carried_fields(runs: Runs, carry: Sequence[str] | None) -> pa.Schema:
    """The carried columns: those of `carry`, or with None all that any run carries.

    Raises:
        UserError: no run carries a column, or two carry it with different types.
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
    return pa.schema([pa.field(name, _one_type(name, found[name])) for name in names])


def _one_type(name: str, found: list[tuple[pa.DataType, str]]) -> pa.DataType:
    """The type of a carried column; where it is all null it has no say."""
    typed = [each for each in found if not pa.types.is_null(each[0])] or found
    first, where = typed[0]
    for other, output in typed[1:]:
        if other != first:
            raise UserError(
                f"column {name!r} is of type {first} in {where} and {other} in {output}: leave it out by --carry"
            )
    return first


def find_incomplete(union: Union, stored: list[parts.Stored], work: str) -> tuple[int, int | None]:
    """How many galaxies lack samples though no run lists them as failed, and the row of the first.

    A galaxy lacks samples without having failed only where it is not in the catalogue of each run that has them.

    Args:
        union: the union.
        stored: the parts of each run.
        work: folder for a file that is removed again.
    """
    if len({source.plan.catalogue["sha256"] for source in union.sources}) == 1:
        return 0, None
    path = os.path.join(work, "runs.npy")
    runs = allocate_array(path, np.uint64, union.rows)
    for number, source in enumerate(union.sources):
        for rows in _stretches(source.plan.rows):
            runs[source.places.of(rows.start, rows.stop)] |= np.uint64(1 << number)
    # From here on 1 marks a galaxy that is incomplete.
    for rows in _stretches(union.rows):
        masks, which = np.unique(runs[rows.start : rows.stop], return_inverse=True)
        held = [tuple(n for n in range(len(union.sources)) if int(mask) >> n & 1) for mask in masks]
        lacking = np.array([bool(union.ensemble.missing(sources)) for sources in held])
        runs[rows.start : rows.stop] = lacking[which]
    for source, parts_ in zip(union.sources, stored, strict=True):
        for number, refs in parts_.items():
            snippet = source.plan.snippet(number)
            place = source.places.of(snippet.start, snippet.stop)
            if runs[place].any():
                runs[place[_failed(source, refs)]] = 0
    count, first = 0, None
    for rows in _stretches(union.rows):
        found = np.flatnonzero(runs[rows.start : rows.stop])
        count += len(found)
        if first is None and len(found):
            first = rows.start + int(found[0])
    del runs
    os.unlink(path)
    return count, first


def _failed(source: Source, refs: list[PartRef]) -> np.ndarray:
    """Offsets within the snippet of the galaxies that no part holds; of a snippet with one part only its end is read."""
    plan, output = source.plan, source.output
    if len(refs) == 1:
        path = os.path.join(output, layout.SAMPLES, refs[0].name)
        return np.array([failure.offset for failure in parts.read_failures(path)], np.int64)
    read = [parts.read_part(plan, output, layout.SAMPLES, ref) for ref in refs]
    failed = {failure.offset for part in read for failure in part.failures}
    return np.array(sorted(failed - {int(offset) for part in read for offset in part.offsets}), np.int64)


def _stretches(rows: int, size: int = 1 << 20) -> list[range]:
    return [range(start, min(rows, start + size)) for start in range(0, rows, size)]


def id_of_row(union: Union, row: int) -> str:
    """The id of a galaxy of the union."""
    part = row // union.part_rows
    return union.read_table_rows("", part).column(ID)[row - part * union.part_rows].as_py()
