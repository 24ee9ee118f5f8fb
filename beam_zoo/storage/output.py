"""The folder of an output: whether it is usable, and which of its files may be removed."""

import contextlib
import os
import re

from beam_zoo.errors import UserError
from beam_zoo.storage import files, local
from beam_zoo.storage.layout import (
    DATAFLOW_STAGING,
    MANIFEST,
    PLAN,
    PLAN_FILE,
    REPORTS,
    REPRESENTATIONS,
    RETRY,
    SAMPLES,
    SLURM_JOBS,
    TABLES,
)

# Every file that this program writes, so that --overwrite removes nothing else.
_TEMPORARY = r"(\.[0-9a-f]{32})?"
_OURS = re.compile(
    rf"({'|'.join(TABLES)}|{SAMPLES}|{REPRESENTATIONS}/[^/]+)/\.?part-\d+(_\d+)?\.parquet{_TEMPORARY}"
    rf"|\.?{re.escape(MANIFEST)}{_TEMPORARY}"
    rf"|{REPORTS}/\.?part-\d+\.json{_TEMPORARY}|{RETRY}/\.?\d+{_TEMPORARY}"
    rf"|({SLURM_JOBS}|{DATAFLOW_STAGING})/.+"
    rf"|{PLAN}/(\.?plan\.json{_TEMPORARY}|(rows|carried)-[0-9a-f]+/\.?\d+\.parquet{_TEMPORARY}|members/[^/]+)"
)
_OUR_FOLDERS = re.compile(
    rf"{'|'.join(TABLES)}|{SAMPLES}|{REPRESENTATIONS}(/[^/]+)?|{REPORTS}|{RETRY}"
    rf"|{PLAN}(/((rows|carried)-[0-9a-f]+|members))?"
)


def check(output: str, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be this program's output.

    Raises:
        UserError: it holds other things, or cannot be written.
    """
    if "\0" in output:
        raise UserError("output: a path cannot hold a null character")
    if files.is_remote(output) and not files.is_object(output):
        raise UserError(f"output {output}: only local folders and gs:// can be written")
    try:
        if files.is_object(output):
            _check_content(output, overwrite)
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(output)
    except OSError as error:
        raise UserError(f"output {output} cannot be written: {error.strerror}") from None
    if os.path.exists(output) and not os.path.isdir(output):
        raise UserError(f"output {output} is a file, not a folder")
    if os.path.isdir(output):
        _check_content(output, overwrite)
    parent = output
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"output {output} cannot be written: {parent} is not a writable folder")
    if not is_output(output):  # else it has parts, which are linked to their names
        with files.storage(parent):
            local.check_hard_links(parent)


def _check_content(output: str, overwrite: bool) -> None:
    """Refuse what is neither empty nor an output; the files of an output are not listed for this."""
    if is_output(output):
        return
    if files.is_object(output) and files.exists(output):
        raise UserError(f"output {output} is an object, not a folder")
    planned = others = False
    for path in files.walk(output):
        if not _OURS.fullmatch(path):
            raise UserError(
                f"output {output} is not empty and not an output of this program: choose another folder"
            )
        planned = planned or path.startswith(f"{PLAN}/")
        others = others or not path.startswith((f"{PLAN}/", SLURM_JOBS, DATAFLOW_STAGING))
    # Files of a planning that was killed, perhaps one with --overwrite, do not matter.
    if others and not planned and not os.path.isdir(os.path.join(output, PLAN)):
        what = "--overwrite removes nothing there" if overwrite else "choose another folder"
        raise UserError(f"output {output} has no plan of this program: {what}")
    if others and not overwrite:
        raise UserError(f"{output} has lost its plan, {PLAN_FILE}: restore it, or use --overwrite")


def is_output(output: str) -> bool:
    """Whether a folder has a plan of this program."""
    return files.exists(os.path.join(output, PLAN_FILE))


def is_own(output: str, path: str) -> bool:
    """Whether a file is one that `clear` would remove."""
    if files.is_remote(output) or files.is_remote(path):
        return path.startswith(f"{output}/") and _OURS.fullmatch(path[len(output) + 1 :]) is not None
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(output))
    return _OURS.fullmatch(inside) is not None


def clear(output: str) -> None:
    """Remove what this program wrote, and nothing else; the plan last, so that it can be repeated.

    Logs and scripts of batch jobs stay: the batch job that runs this command uses them.
    """
    last = PLAN_FILE
    there = sorted(files.walk(output), key=lambda path: path.startswith(PLAN))
    ours = [
        path
        for path in there
        if _OURS.fullmatch(path) and path != last and not path.startswith((SLURM_JOBS, DATAFLOW_STAGING))
    ]
    files.remove(*(os.path.join(output, path) for path in ours))
    _remove_folders(output)
    files.remove(os.path.join(output, last))
    _remove_folders(output)


def _remove_folders(output: str) -> None:
    """Remove folders of this program's that are empty now."""
    for folder, _, _ in os.walk(output, topdown=False):
        if _OUR_FOLDERS.fullmatch(os.path.relpath(folder, output)) and not os.listdir(folder):
            os.rmdir(folder)


def remove_manifest(output: str) -> None:
    """From here to the new manifest there is none: the output is not complete."""
    path = os.path.join(output, MANIFEST)
    with files.storage(path):
        files.remove(path)
