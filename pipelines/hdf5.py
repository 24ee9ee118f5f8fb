"""Write stored samples to an HDF5 file, one table part at a time."""

import contextlib
import io
import os
import shutil
import sys
import uuid
from collections.abc import Iterator

import h5py
import numpy as np

from beam_zoo.errors import UserError, near_path, one_line
from beam_zoo.storage.files import is_folder, storage
from beam_zoo.storage.local import sync_file, sync_folder
from beam_zoo.union.output_samples import OutputSamples, open_samples
from beam_zoo.union.runs import complete_parts

GALAXIES_PER_CHUNK, IDS_PER_CHUNK = 256, 4096
SPACE_FOR_METADATA = 1 << 20
"""Bytes that HDF5 may need for a table part besides its chunks and ids."""


def write(output: str, path: str, *, overwrite: bool) -> int:
    """Write all predicted galaxies of an output, in its order.

    Args:
        output: folder of the output.
        path: the file; it appears when it is complete.
        overwrite: whether to replace a file of that name.

    Returns:
        The number of galaxies.

    Raises:
        UserError: the output or the file cannot be used, or galaxies do not all have the same samples.
        StorageFull: the disk or the quota is full.
    """
    folder, name = os.path.split(path)
    if os.path.isdir(path):
        raise UserError(f"--hdf5 {path} is a folder: name a file")
    if os.path.exists(path) and not overwrite:
        raise UserError(f"--hdf5 {path} is there already: give --overwrite to replace it")
    if not os.path.isdir(folder):
        raise UserError(f"--hdf5 {path}: there is no folder {folder}{near_path(folder)}")
    if not is_folder(output):
        raise UserError(f"there is no output {output}{near_path(output)}")
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    work = temporary + ".work"
    try:
        with storage(path):
            os.mkdir(work)
        opened = open_samples(output, work)
        union = opened.union
        for source in union.sources:
            complete_parts(source.plan, source.output)
        with storage(path), _hdf5_errors(path):
            count = _write(opened, temporary)
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
    return count


def _write(opened: OutputSamples, path: str) -> int:
    """Write the file, one table part at a time; returns the number of galaxies."""
    union, count = opened.union, 0
    empty = _empty_file(opened)
    with open(path, "xb") as raw:
        raw.write(empty)
        raw.flush()
        for part in range(union.table_parts):
            ids, samples = _predicted(opened, part)
            if not ids:
                continue
            # HDF5 crashes at the end of the process if the disk is full when it writes. So the space is
            # allocated first, where an error is an exception like any other. Opened after that, HDF5 cuts off
            # what it did not use when it closes the file. A file server may report only to fsync that it is
            # full.
            os.posix_fallocate(raw.fileno(), os.fstat(raw.fileno()).st_size, _space_needed(ids, samples))
            os.fsync(raw.fileno())
            with h5py.File(path, "r+", locking=False) as file:
                _append(file, ids, samples)
            count += len(ids)
    return count


def _empty_file(opened: OutputSamples) -> bytes:
    """An HDF5 file with all datasets, and no galaxies.

    Raises:
        UserError: members have different numbers of passes.
    """
    union, text = opened.union, h5py.string_dtype("utf-8")
    passes = len(union.passes[0])
    if any(len(numbers) != passes for numbers in union.passes):
        counts = ", ".join(f"{m.name} {len(n)}" for m, n in zip(union.members, union.passes, strict=True))
        raise UserError(
            f"members have different numbers of passes ({counts}): the file has room for one number"
        )
    shape, buffer = (len(union.outputs), len(union.members), passes), io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset(
            "predictions",
            (0, *shape),
            np.float32,
            maxshape=(None, *shape),
            chunks=(GALAXIES_PER_CHUNK, *shape),
        )
        file.create_dataset("id_str", (0,), text, maxshape=(None,), chunks=(IDS_PER_CHUNK,))
        file.create_dataset("label_cols", data=list(union.outputs), dtype=text)
        file.create_dataset("members", data=[member.name for member in union.members], dtype=text)
    return buffer.getvalue()


def _space_needed(ids: list[str], samples: np.ndarray) -> int:
    """An upper bound of the bytes by which the file grows, in whole chunks.

    An id takes 16 bytes in its dataset, and its UTF-8 text with a header of 16 bytes in HDF5's heap. An entry
    in the index of chunks takes up to 112 bytes.
    """
    chunks, id_chunks = len(ids) // GALAXIES_PER_CHUNK + 2, len(ids) // IDS_PER_CHUNK + 2
    text = sum(len(name.encode()) + 32 for name in ids)
    size = chunks * (GALAXIES_PER_CHUNK * samples[0].nbytes + 128) + id_chunks * (IDS_PER_CHUNK * 16 + 128)
    return size + 2 * text + SPACE_FOR_METADATA


def _append(file: h5py.File, ids: list[str], samples: np.ndarray) -> None:
    """Append galaxies; `samples` is float32 of shape (galaxy, sample, answer), samples member by member."""
    predictions, names = file["predictions"], file["id_str"]
    count, answers, members, passes = predictions.shape
    predictions.resize(count + len(ids), 0)
    names.resize(count + len(ids), 0)
    predictions[count:] = samples.reshape(len(ids), members, passes, answers).transpose(0, 3, 1, 2)
    names[count:] = ids


def _predicted(opened: OutputSamples, part: int) -> tuple[list[str], np.ndarray]:
    """Ids of a table part's predicted galaxies, in order, and samples: float32, (galaxy, sample, answer)."""
    galaxies, complete = opened.read_table_part(part).galaxies, len(opened.union.ensemble.samples)
    for some in galaxies:
        if len(some.held) < complete:
            raise UserError(
                f"galaxy {some.ids[0]!r} lacks samples that others have: the file has no room for that"
            )
    if not galaxies:
        return [], np.zeros((0, complete, len(opened.union.outputs)), np.float32)
    order = np.argsort(np.concatenate([some.rows for some in galaxies]))
    ids = [name for some in galaxies for name in some.ids]
    return [ids[index] for index in order], np.concatenate([some.samples for some in galaxies])[order]


@contextlib.contextmanager
def _hdf5_errors(path: str) -> Iterator[None]:
    """Make one line of an error of HDF5; errors of the operating system, which have a number, pass."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"cannot write {path}: {one_line(error, 200)}") from None
