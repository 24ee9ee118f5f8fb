"""Carry out `export`: stored samples to HDF5, a table part at a time."""

import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterator

import h5py
import numpy as np

from beam_zoo.errors import StorageFull, UserError, near_path, one_line
from beam_zoo.files import storage, sync_file, sync_folder
from beam_zoo.reopen import Reopened, reopen
from pipelines.merge import complete_parts

GALAXIES_A_CHUNK = 256


def write(output: str, path: str, *, overwrite: bool) -> int:
    """Write all predicted galaxies of an output, in its order.

    Args:
        output: folder of the output.
        path: the file; it is there only when it is complete.
        overwrite: whether to replace one that is there.

    Returns:
        The exit code, 0.

    Raises:
        UserError: the output or the file cannot be used, or galaxies do not all have the same samples.
        StorageFull: the disk is full.
    """
    folder, name = os.path.split(path)
    if os.path.isdir(path):
        raise UserError(f"--hdf5 {path} is a folder: name a file")
    if os.path.exists(path) and not overwrite:
        raise UserError(f"--hdf5 {path} is there already: give --overwrite to replace it")
    if not os.path.isdir(folder):
        raise UserError(f"--hdf5 {path}: there is no folder {folder}{near_path(folder)}")
    if not os.path.isdir(output):
        raise UserError(f"there is no output {output}{near_path(output)}")
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    work = temporary + ".work"
    try:
        with storage(path):
            os.mkdir(work)
        opened = reopen(output, work)
        union = opened.union
        for source in union.sources:
            complete_parts(source.plan, source.output)
        count = _write(opened, temporary, path)
        with storage(path):
            sync_file(temporary)
            if overwrite:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # unlike a rename, this replaces nothing
            sync_folder(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    print(
        f"{count:,} of {union.rows:,} galaxies written, {union.rows - count:,} failed: {path}",
        file=sys.stderr,
    )
    return 0


def _write(opened: Reopened, temporary: str, path: str) -> int:
    """The datasets; returns the number of galaxies."""
    union = opened.union
    answers, members, passes = len(union.outputs), len(union.members), len(union.passes[0])
    if any(len(numbers) != passes for numbers in union.passes):
        counts = ", ".join(f"{m.name} {len(n)}" for m, n in zip(union.members, union.passes, strict=True))
        raise UserError(
            f"members have different numbers of passes ({counts}): the file has room for one number"
        )
    text = h5py.string_dtype("utf-8")
    count = 0
    with _hdf5_errors(path), h5py.File(temporary, "w") as file:
        shape = (answers, members, passes)
        predictions = file.create_dataset(
            "predictions", (0, *shape), np.float32, maxshape=(None, *shape), chunks=(GALAXIES_A_CHUNK, *shape)
        )
        ids = file.create_dataset("id_str", (0,), text, maxshape=(None,), chunks=(4096,))
        file.create_dataset("label_cols", data=list(union.outputs), dtype=text)
        file.create_dataset("members", data=[member.name for member in union.members], dtype=text)
        for part in range(union.table_parts):
            names, samples = _predicted(opened, part)
            stop = count + len(names)
            predictions.resize(stop, 0)
            ids.resize(stop, 0)
            if names:
                by_member = samples.reshape(len(names), members, passes, answers)
                predictions[count:stop] = by_member.transpose(0, 3, 1, 2)
                ids[count:stop] = names
            count = stop
    return count


def _predicted(opened: Reopened, part: int) -> tuple[list[str], np.ndarray]:
    """Ids and samples (galaxy, sample, answer) of a table part's predicted galaxies, in order."""
    union, read = opened.union, opened.table_part(part)
    complete = len(union.layouts.samples)
    for some in read.galaxies:
        if len(some.present) < complete:
            raise UserError(
                f"galaxy {some.ids[0]!r} lacks samples that others have: the file has no room for that"
            )
    rows = np.concatenate([np.zeros(0, np.int64), *(some.rows for some in read.galaxies)])
    order = np.argsort(rows)
    ids = [name for some in read.galaxies for name in some.ids]
    samples = [some.samples for some in read.galaxies] or [
        np.zeros((0, complete, len(union.outputs)), np.float32)
    ]
    return [ids[index] for index in order], np.concatenate(samples)[order]


@contextlib.contextmanager
def _hdf5_errors(path: str) -> Iterator[None]:
    """HDF5 tells of a full disk in the text of its errors."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if "errno = 28" in str(error) or "errno = 122" in str(error):
            raise StorageFull(f"no space left for {path}: make room and run the same command again") from None
        raise UserError(f"cannot write {path}: {one_line(error, 200)}") from None
