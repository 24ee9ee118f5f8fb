"""Carry out `aggregate`: unite the runs, build the tables in a working folder, and publish them when all is well."""

import contextlib
import fcntl
import functools
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from beam_zoo.errors import UserError
from beam_zoo.members import member as member_files
from beam_zoo.plan import plan as plans
from beam_zoo.runtime.versions import changes, versions
from beam_zoo.samples import parts
from beam_zoo.samples.ensemble import REFUSE
from beam_zoo.samples.read import FILES
from beam_zoo.storage import layout
from beam_zoo.storage import output as outputs
from beam_zoo.storage.files import is_remote, read_json, storage, write_json
from beam_zoo.storage.layout import AGGREGATE_MARK as MARK
from beam_zoo.storage.layout import AGGREGATE_WORK as WORK
from beam_zoo.storage.layout import FAILURES, TABLES, part_number
from beam_zoo.storage.local import sync_folder
from beam_zoo.tables.reports import read_report
from beam_zoo.union.reading import ReadSamples, ReadTask, read_tasks, reorder_samples, unique_files
from beam_zoo.union.runs import Runs, all_members, carried_fields, find_incomplete, id_of_row, open_runs
from beam_zoo.union.union import Union, manifest_entry, unite
from pipelines import manifest as manifests
from pipelines.build import table_parts_at_once
from pipelines.tables import combine_and_write
from runners import beam_options, cluster, processes, secrets, start

LEFT_AFTER = 24 * 3600
"""Seconds after which a working folder that no command has locked is taken for one of a killed command."""
MOST_RUNS = 64


def execute(values: dict[str, Any], flags: list[str]) -> int:
    """Check, unite, build the tables, and publish them with the manifest.

    Args:
        values: the command's own options.
        flags: Beam's options.

    Returns:
        The exit code: 0, or 3 if more galaxies failed than `max_failure_fraction` allows.

    Raises:
        UserError: the runs do not go together, or contradict each other.
        StorageFull: the output's disk is full.
    """
    begin, output = time.time(), values["output"]
    cluster.check(flags)
    runs = open_runs(values["samples"])
    if len(runs) > MOST_RUNS:
        raise UserError(f"{len(runs)} runs are too many for one aggregate: {MOST_RUNS} at most")
    members, passes = all_members(runs)
    fields = carried_fields(runs, values["carry"])
    stored = [complete_parts(plan, folder) for plan, folder in runs]
    _check_output(output, runs, overwrite=values["overwrite"])
    for plan, folder in runs:
        if changed := changes(plan.versions, versions()):
            print(f"note: {folder} was predicted with other versions: {changed}", file=sys.stderr)
    with _working(output, overwrite=values["overwrite"]) as work:
        union = unite(
            runs, members, passes, fields, values["incomplete"], values["interval"], plans.TABLE_ROWS, work
        )
        if union.incomplete == REFUSE:
            _refuse_incomplete(union, stored, work)
        built = os.path.join(work, "tables")
        files = build(union, stored, built, flags)
        reports = [read_report(built, part) for part in range(union.table_parts)]
        read = unique_files([*files, *(file for report in reports for file in report["parts"])])
        manifest = _manifest(union, reports, read, begin, values, flags)
        _publish(built, output, manifest, overwrite=values["overwrite"])
    print(
        f"{manifest['rows_predicted']:,} of {union.rows:,} galaxies aggregated from {len(runs)} runs, "
        f"{manifest['rows_failed']:,} failed, in {time.time() - begin:.1f} s: {output}",
        file=sys.stderr,
    )
    manifests.check_failures(manifest, output, values["max_failure_fraction"])
    return 0


def complete_parts(plan: plans.Plan, output: str) -> parts.Stored:
    """All parts of a run, or a refusal that lists the snippets without one."""
    stored = parts.stored_parts(plan, output)
    if left := parts.missing_ranges(stored, plan.snippets):
        raise UserError(f"{output} lacks the samples of --snippets {' '.join(left)}: predict them first")
    return stored


def _refuse_incomplete(union: Union, stored: list[parts.Stored], work: str) -> None:
    count, first = find_incomplete(union, stored, work)
    if first is not None:
        raise UserError(
            f"{count:,} of {union.rows:,} galaxies are not in all runs that have a member or pass (first "
            f"{id_of_row(union, first)!r}): give --incomplete drop to list them in {FAILURES}/, or --incomplete keep "
            "to take them with the samples that they have"
        )


def build(union: Union, stored: list[parts.Stored], output: str, flags: list[str]) -> list[dict[str, Any]]:
    """Build all tables of a union.

    Args:
        union: the union.
        stored: the parts of each run.
        output: the folder that the tables and their reports are written below.
        flags: Beam's options.

    Returns:
        The files that were read outside the pipeline, to put runs into the union's order.
    """
    if beam_options.runner_name(flags) != beam_options.DIRECT:
        pieces = [
            ReadTask(number, ref, 0, union.rows)
            for number, of_run in enumerate(stored)
            for refs in of_run.values()
            for ref in refs
        ]
        start.run(lambda p: tables(p, pieces, union, output), flags)
        return []
    # The local runner keeps every shuffle in memory: a few table parts at a time, each from what it needs.
    read = []
    for number, source in enumerate(union.sources):
        if source.moved is not None:
            read += reorder_samples(union, number, stored[number])
    largest = max(source.plan.snippet_size for source in union.sources)
    at_once = table_parts_at_once(union.part_rows, len(union.ensemble.samples) * len(union.outputs))
    rows = union.part_rows * max(at_once, -(-largest // union.part_rows))
    builds = []
    for first in range(0, union.rows, rows):
        some = read_tasks(union, stored, range(first, min(union.rows, first + rows)))
        builds.append(functools.partial(tables, pieces=some, union=union, output=output))
    processes.run_all(builds, flags)
    return read


def tables(p: beam.Pipeline, pieces: list[ReadTask], union: Union, output: str) -> "beam.PCollection[dict]":
    """The dataflow: from pieces of the runs to tables."""
    reader = beam.ParDo(ReadSamples(union)).with_output_types(tuple[bytes, bytes])
    read = (
        p
        | "pieces" >> beam.Create(pieces, reshuffle=False)
        | "read pieces" >> reader.with_outputs(FILES, main="galaxies")
    )
    return combine_and_write(read, union, output, union.ensemble)


def _check_output(output: str, runs: Runs, *, overwrite: bool) -> None:
    """Refuse a folder that is not free for an aggregate."""
    real = os.path.realpath(output)
    for _, folder in runs:
        if is_remote(folder):
            continue
        other = os.path.realpath(folder)
        if os.path.commonpath([real, other]) == other:
            raise UserError(f"output {output} is in {folder}, one of the runs: choose another folder")
    if os.path.isfile(os.path.join(output, MARK)):
        if os.path.exists(os.path.join(output, layout.MANIFEST)) and not overwrite:
            raise UserError(
                f"output {output} holds an aggregate: give --overwrite to build it anew, or another --output"
            )
    elif os.path.isdir(output) and any(not name.startswith(f".{MARK}.") for name in os.listdir(output)):
        raise UserError(f"output {output} is not empty and not an aggregate: choose another folder")
    else:
        outputs.check(output, overwrite=False)


@contextlib.contextmanager
def _working(output: str, *, overwrite: bool) -> Iterator[str]:
    """An empty working folder of this command's own in the output, which is marked as an aggregate's.

    The output is left as it was after an error. Other commands may work there at the same time.
    """
    work = os.path.join(output, WORK, uuid.uuid4().hex)
    with storage(output):
        os.makedirs(output, exist_ok=True)
    _mark(output)
    alive = None
    try:
        with storage(output):
            _make(work)
            alive = _lock(work, wait=False)
        _remove_left(output, overwrite=overwrite)
        yield work
    finally:
        if alive is not None:
            os.close(alive)
        _clean(output, work)


def _mark(output: str) -> None:
    """Mark a folder as an aggregate's."""
    path = os.path.join(output, MARK)
    if not os.path.exists(path):
        write_json(path, {"command": "aggregate"})


def _make(folder: str) -> None:
    """Make a folder, though another command that ends may just remove what it is in."""
    for _ in range(9):
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(folder)
            return
    os.makedirs(folder)


def _lock(folder: str, *, wait: bool) -> int | None:
    """Lock a folder until the handle is closed or the process dies; None if another has it, or nothing locks there."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle


def _remove_left(output: str, *, overwrite: bool) -> None:
    """Remove the working folders of commands that were killed: all with `overwrite`, or else those of the days before.

    A command that runs has its folder locked. One on another machine may not be seen to, so nothing goes unasked that
    is not old.
    """
    folder = os.path.join(output, WORK)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if not overwrite and time.time() - os.stat(path).st_mtime < LEFT_AFTER:
                continue
            handle = _lock(path, wait=False)
            if handle is not None:
                try:
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(handle)


def _clean(output: str, work: str) -> None:
    """Remove this command's working folder, and the mark where there is nothing to mark."""
    shutil.rmtree(work, ignore_errors=True)
    with contextlib.suppress(OSError):  # other commands' folders stay, and what they are in
        os.rmdir(os.path.dirname(work))
    with contextlib.suppress(OSError):
        if os.listdir(output) == [MARK]:
            os.unlink(os.path.join(output, MARK))
            os.rmdir(output)


def _publish(built: str, output: str, manifest: dict[str, Any], *, overwrite: bool) -> None:
    """Tables move to their place, and the manifest is written last of all.

    Of two commands that come here at the same time one waits for the other, and then agrees with it or gives way. Even
    where nothing locks, files are only replaced by whole ones, and what is removed is none of the new ones.
    """
    with storage(output):
        handle = _lock(output, wait=True)
    try:
        if not overwrite:
            _check_agreement(output, manifest)
        _mark(output)  # a command that was refused meanwhile may have removed it
        with storage(output):
            outputs.remove_manifest(output)
            for table in TABLES:
                source, target = os.path.join(built, table), os.path.join(output, table)
                os.makedirs(target, exist_ok=True)
                names = sorted(os.listdir(source))
                for name in names:
                    _move(os.path.join(source, name), os.path.join(target, name))
                for name in set(os.listdir(target)) - set(names):
                    if part_number(name):  # of earlier tables; somebody else's files stay
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(os.path.join(target, name))
                sync_folder(target)
        write_json(os.path.join(output, layout.MANIFEST), manifest)
    finally:
        if handle is not None:
            os.close(handle)


def _check_agreement(output: str, manifest: dict[str, Any]) -> None:
    """Refuse to replace what another command has published since this one began, unless the tables are the same."""
    try:
        there = read_json(os.path.join(output, layout.MANIFEST))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        there = {}
    if there.get("tables") != manifest["tables"]:
        raise UserError(
            f"another command has built an aggregate in {output} meanwhile: give --overwrite to replace it, "
            "or another --output"
        )


def _move(source: str, target: str) -> None:
    os.replace(source, target)


def _manifest(
    union: Union,
    reports: list[dict[str, Any]],
    read: list[dict[str, Any]],
    begin: float,
    values: dict[str, Any],
    flags: list[str],
) -> dict[str, Any]:
    predicted = sum(report["predicted"] for report in reports)
    failed = sum(report["failed"] for report in reports)
    if predicted + failed != union.rows:
        raise AssertionError(f"{predicted} predicted and {failed} failed are not the {union.rows} rows")
    sources = []
    for number, source in enumerate(union.sources):
        plan = source.plan
        own = [{k: v for k, v in file.items() if k != "source"} for file in read if file["source"] == number]
        sources.append(
            {
                "path": source.output,
                "fingerprint": plan.fingerprint,
                **manifest_entry(plan),
                "parts": own,
            }
        )
    return {
        "command": union.command,
        "rows_in": union.rows,
        "rows_predicted": predicted,
        "rows_failed": failed,
        "rows_incomplete": sum(report["incomplete"] for report in reports),
        "members": [
            {**member_files.to_json(member), "passes": list(numbers)}
            for member, numbers in zip(union.members, union.passes, strict=True)
        ],
        "carried": union.fields.names,
        "incomplete": union.incomplete,
        "interval": union.interval,
        "rows_per_table_part": union.part_rows,
        "versions": versions(),
        "options": values,
        "beam_options": [*map(secrets.shown, flags)],
        "start": manifests.utc(begin),
        "end": manifests.utc(time.time()),
        "tables_fingerprint": union.tables_fingerprint,
        "tables": [file for report in reports for file in report["files"].values()],
        "sources": sources,
    }
