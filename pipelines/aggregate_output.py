"""The output of `aggregate`: it is built in a working folder, and published when it is complete.

The working folder is locked while its command runs, and the output while a command publishes. Several
commands may work in one output at the same time.
"""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from beam_zoo.errors import UserError
from beam_zoo.storage import output as outputs
from beam_zoo.storage.files import is_remote, read_json, storage, write_json
from beam_zoo.storage.layout import AGGREGATE_MARK, AGGREGATE_WORK, MANIFEST, TABLES, part_number
from beam_zoo.storage.local import sync_folder

ABANDONED_AFTER = 24 * 3600
"""Seconds after which a working folder without a lock is taken for that of a command that was killed."""


def check_output(output: str, runs: Sequence[str], *, overwrite: bool) -> None:
    """Check that an aggregate can be written to a folder.

    Args:
        output: the folder.
        runs: folders of the runs.
        overwrite: whether an aggregate that is there may be replaced.

    Raises:
        UserError: the folder is in one of the runs, holds an aggregate or other files, or cannot be written.
    """
    real = os.path.realpath(output)
    for folder in runs:
        if is_remote(folder):
            continue
        other = os.path.realpath(folder)
        if os.path.commonpath([real, other]) == other:
            raise UserError(f"output {output} is in {folder}, one of the runs: choose another folder")
    if os.path.isfile(os.path.join(output, AGGREGATE_MARK)):
        if os.path.exists(os.path.join(output, MANIFEST)) and not overwrite:
            raise UserError(
                f"output {output} holds an aggregate: give --overwrite to build it anew, or another --output"
            )
    # Another command may be about to write the mark, under a temporary name.
    elif os.path.isdir(output) and any(
        not name.startswith(f".{AGGREGATE_MARK}.") for name in os.listdir(output)
    ):
        raise UserError(f"output {output} is not empty and not an aggregate: choose another folder")
    else:
        outputs.check(output, overwrite=False)


@contextlib.contextmanager
def working_folder(output: str, *, overwrite: bool) -> Iterator[str]:
    """Make an empty, locked working folder in the output, and mark the output as an aggregate's.

    The working folder is removed at the end. After an error the output is as it was.

    Args:
        output: folder of the output; made if absent.
        overwrite: whether all working folders of commands that were killed are removed, not only old ones.

    Raises:
        UserError: the folder cannot be written.
        StorageFull: the disk or the quota is full.
    """
    work = os.path.join(output, AGGREGATE_WORK, uuid.uuid4().hex)
    with storage(output):
        os.makedirs(output, exist_ok=True)
    _mark(output)
    try:
        with storage(output):
            _make_folder(work)
        with _locked(work, wait=False):
            _remove_abandoned(output, overwrite=overwrite)
            yield work
    finally:
        _clean(output, work)


def _mark(output: str) -> None:
    """Mark a folder as the output of `aggregate`."""
    path = os.path.join(output, AGGREGATE_MARK)
    if not os.path.exists(path):
        write_json(path, {"command": "aggregate"})


def _make_folder(folder: str) -> None:
    """Make a folder; another command that ends may remove its parent at the same moment."""
    for _ in range(9):
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(folder)
            return
    os.makedirs(folder)


@contextlib.contextmanager
def _locked(folder: str, *, wait: bool) -> Iterator[bool]:
    """Lock a folder; gives False if another process has locked it, or the file system has no locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            is_locked = True
        except OSError:
            is_locked = False
        yield is_locked
    finally:
        os.close(handle)


def _remove_abandoned(output: str, *, overwrite: bool) -> None:
    """Remove working folders of commands that were killed: all with `overwrite`, else those that are old.

    A running command has locked its folder. A lock of another machine may not be visible here, so a folder
    that is not old is removed only if the user asks for it.
    """
    folder = os.path.join(output, AGGREGATE_WORK)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # it was removed just now, or belongs to another user
            if not overwrite and time.time() - os.stat(path).st_mtime < ABANDONED_AFTER:
                continue
            with _locked(path, wait=False) as is_locked:
                if is_locked:
                    shutil.rmtree(path, ignore_errors=True)


def _clean(output: str, work: str) -> None:
    """Remove a working folder, and the mark if the output is empty."""
    shutil.rmtree(work, ignore_errors=True)
    with contextlib.suppress(OSError):  # another command has a working folder there
        os.rmdir(os.path.dirname(work))
    with contextlib.suppress(OSError):
        if os.listdir(output) == [AGGREGATE_MARK]:
            os.unlink(os.path.join(output, AGGREGATE_MARK))
            os.rmdir(output)


def publish(built: str, output: str, manifest: dict[str, Any], *, overwrite: bool) -> None:
    """Move the tables to their place, and write the manifest last.

    Commands that publish at the same time do so one after the other; the second is refused if its tables
    differ. Where the file system has no locks, files are still replaced atomically, and no file of the new
    tables is removed.

    Args:
        built: folder with the tables.
        output: folder of the output.
        manifest: content of the manifest.
        overwrite: whether the aggregate of another command is replaced.

    Raises:
        UserError: another command has published an aggregate with other tables.
        StorageFull: the disk or the quota is full.
    """
    with _locked(output, wait=True):
        if not overwrite:
            _check_same_tables(output, manifest)
        _mark(output)  # a command that was refused may have removed it
        with storage(output):
            outputs.remove_manifest(output)
            for table in TABLES:
                _move_files(os.path.join(built, table), os.path.join(output, table))
        write_json(os.path.join(output, MANIFEST), manifest)


def _check_same_tables(output: str, manifest: dict[str, Any]) -> None:
    """Refuse to replace an aggregate that another command has published, unless it has the same tables."""
    try:
        there = read_json(os.path.join(output, MANIFEST))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        there = {}
    if there.get("tables") != manifest["tables"]:
        raise UserError(
            f"another command has built an aggregate in {output} meanwhile: give --overwrite to replace it, "
            "or another --output"
        )


def _move_files(source: str, target: str) -> None:
    """Move the files of a table, and remove other parts; files that are not parts are kept."""
    os.makedirs(target, exist_ok=True)
    names = sorted(os.listdir(source))
    for name in names:
        os.replace(os.path.join(source, name), os.path.join(target, name))
    for name in set(os.listdir(target)) - set(names):
        if part_number(name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(target, name))
    sync_folder(target)
