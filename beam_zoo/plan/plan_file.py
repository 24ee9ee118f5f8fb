"""A plan's files, below `OUT/_plan`: written once, then only read.

`rows-*/` has the catalogue's rows as Parquet: one file for each table part, one row group for each snippet. A
worker reads the rows of its snippet only (of a bucket: the file). The carried columns are in another folder,
since other carried columns change no sample. Both folders and the staged checkpoints are content-addressed:
jobs that plan at the same time cannot overwrite each other's. `plan.json` is written last, created only if
absent, and replaced by compare-and-swap.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.errors import UserError
from beam_zoo.members.member import Member, to_json
from beam_zoo.members.member import from_json as member_of
from beam_zoo.plan.plan import FORMAT, Plan
from beam_zoo.plan.planned_catalogue import PlannedCatalogue
from beam_zoo.plan.planned_catalogue import from_json as catalogue_of
from beam_zoo.plan.rows import RowWriter, rows_file
from beam_zoo.storage.files import (
    compare_and_swap,
    exists,
    is_folder,
    publish,
    read_bytes,
    read_file,
    read_version,
    remove,
    remove_folder,
    sha256,
    to_json_bytes,
    write_json,
)
from beam_zoo.storage.layout import PLAN_FILE


def read(output: str) -> Plan | None:
    """The plan of an output, or None if it has none.

    Raises:
        UserError: it cannot be read, is of another version of this program, or is damaged.
    """
    path = _path(output)
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read the plan {path}: {error}") from None
    return _parse(data, path)


def _parse(data: bytes, path: str) -> Plan:
    try:
        content = json.loads(data)
        if content.pop("format") != FORMAT:
            raise UserError(
                f"{path} was made by another version of this program: use that, or another --output"
            )
        members, catalogue = content.pop("members"), content.pop("catalogue")
        parts = (Plan, content), (PlannedCatalogue, catalogue), *((Member, member) for member in members)
        for cls, found in parts:
            if unknown := sorted(set(found) - {field.name for field in dataclasses.fields(cls)}):
                raise UserError(
                    f"{path} was made by a newer version of this program (it has {unknown[0]!r}): "
                    "use that version, or another --output"
                )
        values = {
            "members": tuple(map(member_of, members)),
            "catalogue": catalogue_of(catalogue),
            "carried": tuple(content["carried"]),
        }
        return Plan(**{**content, **values})
    except ValueError as error:
        raise UserError(f"cannot read the plan {path}: {error}") from None
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"the plan {path} is damaged: restore it, or use another --output") from None


def write(plan: Plan, output: str, batches: Iterator[pa.RecordBatch], staged: dict[str, str]) -> None:
    """Publish a plan atomically. If another job publishes one first, only that one stays.

    Args:
        plan: the plan.
        output: folder of the output; made if absent.
        batches: all rows of the catalogue, with the carried columns.
        staged: path below the output -> the file to copy there.

    Raises:
        StorageFull: the disk or the quota is full.
        UserError: the output cannot be written.
    """
    files = [os.path.join(output, path) for path in staged]
    folders = [plan.rows_folder(output), *([plan.carried_folder(output)] if plan.carried else [])]
    new = [path for path in files if not exists(path)], [path for path in folders if not is_folder(path)]
    writers = [_row_writer(plan, plan.rows_folder(output), (ID, LOCATION))]
    if plan.carried:
        writers.append(_row_writer(plan, plan.carried_folder(output), plan.carried))
    _write_rows(writers, batches)
    for path, source in staged.items():
        data = read_file(source)
        if not os.path.basename(path).startswith(sha256(data)[:16]):
            raise UserError(f"{source} has changed while the run was planned: run the same command again")
        publish(os.path.join(output, path), data, replace=True)
    if not write_json(_path(output), _content(plan), replace=False):
        _remove_unused(output, *new)


def _remove_unused(output: str, new_files: list[str], new_folders: list[str]) -> None:
    """Remove what was written for a plan that came second, except what the first plan uses too."""
    there = read(output)
    if there is None:
        return
    needed = {there.rows_folder(output), there.carried_folder(output)}
    needed |= {os.path.join(output, member.path) for member in there.members}
    remove(*(path for path in new_files if path not in needed))
    for folder in new_folders:
        if folder not in needed:
            remove_folder(folder)


def _row_writer(plan: Plan, folder: str, columns: tuple[str, ...]) -> RowWriter:
    sizes = {"snippet_size": plan.snippet_size, "snippets_per_table": plan.snippets_per_table}
    return RowWriter(folder, columns, **sizes)


def _write_rows(writers: list[RowWriter], batches: Iterator[pa.RecordBatch]) -> None:
    for batch in batches:
        for writer in writers:
            writer.add(batch)
    for writer in writers:
        writer.close()


def update(old: Plan, plan: Plan, output: str, batches: Iterator[pa.RecordBatch] | None) -> None:
    """Replace a plan by one of the same fingerprint, if no other job has done so: of two jobs one wins.

    Args:
        old: the plan as it was read when this job began.
        plan: the new one.
        output: folder of the output.
        batches: all rows of the catalogue, if other columns are carried.

    Raises:
        StorageFull: the disk or the quota is full.
        UserError: another job has changed the plan, or the output cannot be read or written.
    """
    path = _path(output)
    try:
        before = read_version(path)
        there = _parse(before.data, path)
    except FileNotFoundError:  # another job has begun to overwrite the output
        there = None
    except OSError as error:
        raise UserError(f"cannot read the plan {path}: {error.strerror}") from None
    if there is None or there.fingerprint != plan.fingerprint:
        raise UserError(
            f"another job has just planned something else in {output}: look what it does, then run again"
        )
    if _content(there) == _content(plan):
        return
    changed = UserError(f"another job has just changed the plan of {output}: run the same command again")
    if there != old:
        raise changed
    last = rows_file(plan.carried_folder(output), plan.table_parts - 1)
    if batches is not None and plan.carried and not exists(last):
        _write_rows([_row_writer(plan, plan.carried_folder(output), plan.carried)], batches)
    if not compare_and_swap(path, before, to_json_bytes(_content(plan))):
        raise changed


def _path(output: str) -> str:
    return os.path.join(output, PLAN_FILE)


def _content(plan: Plan) -> dict[str, Any]:
    members = [to_json(member) for member in plan.members]
    fields = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
    catalogue = {**vars(plan.catalogue), "checked": plan.catalogue.checked and vars(plan.catalogue.checked)}
    # As JSON restores it: lists in the place of tuples.
    content = {"format": FORMAT, **fields, "catalogue": catalogue, "members": members}
    return dict(json.loads(json.dumps(content)))
