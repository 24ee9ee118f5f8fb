"""Carry out `export`: stored samples to HDF5, a table part at a time."""

import contextlib
import io
import os
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from beam_zoo.errors import UserError, near_path, one_line
from beam_zoo.storage.files import is_folder, storage
from beam_zoo.storage.local import sync_file, sync_folder
from beam_zoo.union.output_samples import OutputSamples, open_samples
from pipelines.merge import complete_parts

GALAXIES_A_CHUNK = 256


def write(output: str, path: str, *, overwrite: bool) -> int:
    """Write all predicted galaxies of an output, in its order.

    Args:
        output: folder of the output.
        path: the file; it is there only when it is complete.
        overwrite: whether to replace one that is there.

    Returns:
        The number of galaxies.

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
    return count


def _write(opened: OutputSamples, temporary: str, path: str) -> int:
    """The datasets; returns the number of galaxies."""
    union = opened.union
    answers, members, passes = len(union.outputs), len(union.members), len(union.passes[0])
    if any(len(numbers) != passes for numbers in union.passes):
        counts = ", ".join(f"{m.name} {len(n)}" for m, n in zip(union.members, union.passes, strict=True))
        raise UserError(
            f"members have different numbers of passes ({counts}): the file has room for one number"
        )
    with storage(path), open(temporary, "w+b", buffering=0) as raw:
        spared = _Spared(raw)
        with _hdf5_errors(path):
            return _datasets(opened, spared, (answers, members, passes))


def _datasets(opened: OutputSamples, spared: "_Spared", shape: tuple[int, int, int]) -> int:
    """The datasets, of galaxies of a shape (answer, model, pass); returns the number of galaxies."""
    union, text = opened.union, h5py.string_dtype("utf-8")
    answers, members, passes = shape
    count = 0
    with _held_back():
        file = h5py.File(spared, "w")
    try:
        with _held_back():
            predictions = file.create_dataset(
                "predictions",
                (0, *shape),
                np.float32,
                maxshape=(None, *shape),
                chunks=(GALAXIES_A_CHUNK, *shape),
            )
            ids = file.create_dataset("id_str", (0,), text, maxshape=(None,), chunks=(4096,))
            file.create_dataset("label_cols", data=list(union.outputs), dtype=text)
            file.create_dataset("members", data=[member.name for member in union.members], dtype=text)
        for part in range(union.table_parts):
            names, samples = _predicted(opened, part)
            stop = count + len(names)
            with _held_back():
                predictions.resize(stop, 0)
                ids.resize(stop, 0)
                if names:
                    by_member = samples.reshape(len(names), members, passes, answers)
                    predictions[count:stop] = by_member.transpose(0, 3, 1, 2)
                    ids[count:stop] = names
            spared.check()
            count = stop
    finally:
        with _held_back():
            file.close()
    spared.check()
    return count


class _Spared:
    """A file for HDF5 that never fails, for HDF5 crashes the process where it cannot write when it closes a file.

    From the first write that fails on, everything is kept in memory, until `check` tells of it.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._at = self._end = 0
        self._kept: list[tuple[int, bytes]] = []
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise what the disk refused, if it did."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file, and return it."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        """The place in the file."""
        return self._at

    def write(self, data: Any) -> int:
        """Write all the data, to disk or else to memory."""
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                done = 0
                while done < len(view):
                    done += os.pwrite(self._raw.fileno(), view[done:], self._at + done)
            except OSError as error:
                self._error = error
        if self._error is not None:
            self._kept.append((self._at, bytes(view)))
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def read(self, size: int) -> bytes:
        """As `readinto`; h5py knows by it that this is a file."""
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what was written, or zeros."""
        view = memoryview(buffer).cast("B")
        start, stop, done = self._at, self._at + len(view), 0
        view[:] = bytes(len(view))
        try:
            while data := os.pread(self._raw.fileno(), len(view) - done, start + done):
                view[done : done + len(data)] = data
                done += len(data)
        except OSError as error:
            self._error = self._error or error
        for at, kept in self._kept:
            first, last = max(start, at), min(stop, at + len(kept))
            if first < last:
                view[first - start : last - start] = kept[first - at : last - at]
        self._at = stop
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the file's length."""
        if self._error is None:
            try:
                os.ftruncate(self._raw.fileno(), size)
            except OSError as error:
                self._error = error
        self._end = size
        return size

    def flush(self) -> None:
        """Nothing waits to be written."""


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Ctrl-C and SIGTERM act when HDF5 is done: their exceptions in `_Spared` would be failures to write."""
    if threading.current_thread() is not threading.main_thread():  # where no signal is handled
        yield
        return
    held: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda got, frame: held.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for got in held[:1]:
            signal.raise_signal(got)


def _predicted(opened: OutputSamples, part: int) -> tuple[list[str], np.ndarray]:
    """Ids and samples (galaxy, sample, answer) of a table part's predicted galaxies, in order."""
    union, read = opened.union, opened.table_part(part)
    complete = len(union.ensemble.samples)
    for some in read.galaxies:
        if len(some.held) < complete:
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
    """One line for what HDF5 cannot do; what the disk refuses is an OSError with a number, and passes."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"cannot write {path}: {one_line(error, 200)}") from None
