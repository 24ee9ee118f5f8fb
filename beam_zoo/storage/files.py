"""Files that are whole whenever they are there, and durable when a step says that it is done.

A path that starts with gs:// is an object of Google Cloud Storage (`gcs.py`), any other one a local file
(`local.py`).
Functions raise what the operating system would raise for a local file, also for an object.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from beam_zoo.errors import StorageFull, UserError, one_line
from beam_zoo.storage import gcs, local


def is_remote(path: str) -> bool:
    """Whether a path is not a local one."""
    return "://" in path


def is_object(path: str) -> bool:
    """Whether a path is one of Google Cloud Storage."""
    return path.startswith(gcs.SCHEME)


def absolute(path: str) -> str:
    """A path that means the same from any folder, without a slash at its end.

    Raises:
        UserError: `gs:/` with one slash, which is nobody's folder.
    """
    if re.match(r"(gs|s3|hdfs):/(?!/)", path):
        raise UserError(f"{path}: write {path.replace(':/', '://', 1)}")
    if is_remote(path):
        scheme, separator, inside = path.partition("://")
        return f"{scheme}{separator}{inside.rstrip('/')}"
    return os.path.abspath(os.path.expanduser(path))


def beside(path: str, name: str) -> str:
    """The file that another one names, relative to its own folder.

    Args:
        path: of the file that names it.
        name: what stands there: relative, absolute or remote.

    Raises:
        UserError: it climbs out of the bucket.
    """
    name = name if is_remote(name) else os.path.expanduser(name)
    if is_remote(name) or os.path.isabs(name):
        return name if is_remote(name) else os.path.normpath(name)
    scheme, separator, folder = os.path.dirname(path).rpartition("://")
    found = os.path.normpath(os.path.join(folder, name))
    if separator and not found.startswith(f"{folder.partition('/')[0]}/"):
        raise UserError(f"{path} names {name}, which is outside of its bucket")
    return f"{scheme}{separator}{found}"


@contextlib.contextmanager
def storage(path: str) -> Iterator[None]:
    """One line for what a filesystem refuses.

    Args:
        path: what is being written.

    Raises:
        StorageFull: the disk or the quota is full.
        UserError: anything else that the operating system refuses.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no space left for {path}: make room and run the same command again; what is stored is kept"
            ) from None
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def publish(path: str, data: Any, *, replace: bool = False) -> bool:
    """Give a file its name when its bytes are safe: whole, or not at all.

    Args:
        path: the final name; its folder is made if absent.
        data: the file's bytes.
        replace: for views, which may be built anew; parts are never replaced.

    Returns:
        Whether it was this call that wrote it: of two writers of a part the first wins.

    Raises:
        StorageFull: the disk or the quota is full.
        UserError: the folder cannot be written.
    """
    with storage(path):
        if is_object(path):
            return gcs.write(path, data, replace=replace)
        return local.publish(path, data, replace=replace)


def write_json(path: str, content: dict[str, Any], *, replace: bool = True) -> bool:
    """Write, or replace, a JSON file; see `publish`."""
    return publish(path, to_json_bytes(content), replace=replace)


def to_json_bytes(content: dict[str, Any]) -> bytes:
    """A mapping as the bytes of a JSON file."""
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


@dataclasses.dataclass(frozen=True)
class Version:
    """A file as it was read: what `compare_and_swap` may replace.

    Attributes:
        data: its bytes.
        generation: of an object; 0 of a local file.
    """

    data: bytes
    generation: int


def read_version(path: str) -> Version:
    """All bytes of a file, to be replaced by `compare_and_swap`.

    Raises:
        OSError: it cannot be read.
    """
    # An object that changes in between has a later generation, and the swap will fail.
    generation = gcs.stat(path)[1] if is_object(path) else 0
    return Version(read_bytes(path), generation)


def compare_and_swap(path: str, before: Version, data: bytes) -> bool:
    """Replace a file if it is still what was read: of several concurrent processes one wins.

    Args:
        path: the file.
        before: what was read.
        data: the new bytes.

    Returns:
        Whether this call replaced it.

    Raises:
        StorageFull: the disk or the quota is full.
        UserError: the folder cannot be written.
    """
    with storage(path):
        if is_object(path):
            return gcs.write(path, data, replace=True, only=before.generation)
        return local.compare_and_swap(path, before.data, data)


def read_bytes(path: str) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read.
    """
    if is_object(path):
        return gcs.read(path)
    with open(path, "rb") as file:
        return file.read()


def read_json(path: str) -> Any:
    """Content of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON.
    """
    return json.loads(read_bytes(path))


def open_read(path: str) -> BinaryIO:
    """A file to read from anywhere in it, without all of it in memory.

    Raises:
        OSError: it cannot be read.
    """
    return gcs.open_read(path) if is_object(path) else open(path, "rb")


def for_arrow(path: str) -> str | io.BytesIO:
    """What pyarrow reads a small file from: a local path, or all bytes of an object."""
    return io.BytesIO(gcs.read(path)) if is_object(path) else path


def stream_for_arrow(path: str) -> str | BinaryIO:
    """What pyarrow reads a file of any size from: a local path, or an object that is read in ranges."""
    return gcs.open_read(path) if is_object(path) else path


def exists(path: str) -> bool:
    """Whether there is a file, or a local folder, of this name."""
    return gcs.exists(path) if is_object(path) else os.path.exists(path)


def is_folder(path: str) -> bool:
    """Whether there is a folder, or any object below one."""
    return gcs.is_folder(path) if is_object(path) else os.path.isdir(path)


def size(path: str) -> int:
    """Bytes of a file.

    Raises:
        OSError: there is none.
    """
    return gcs.stat(path)[0] if is_object(path) else os.stat(path).st_size


def names(folder: str) -> list[str]:
    """Sorted names of all files and folders that are directly in a folder; none if it is not there.

    Raises:
        NotADirectoryError: it is a file.
        OSError: it cannot be listed.
    """
    if is_object(folder):
        return [name.rstrip("/") for name in gcs.names(folder)]
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def walk(folder: str) -> Iterator[str]:
    """Paths, relative to a folder, of all files in it and its folders.

    Raises:
        OSError: it cannot be listed.
    """
    if is_object(folder):
        yield from gcs.walk(folder)
        return
    for inside, _, found in os.walk(folder):
        for name in found:
            yield os.path.relpath(os.path.join(inside, name), folder)


def remove(*paths: str) -> None:
    """Remove files; those that are not there are gone already.

    Raises:
        OSError: one cannot be removed.
    """
    if objects := [path for path in paths if is_object(path)]:
        gcs.remove(objects)
    for path in paths:
        if not is_object(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def remove_folder(folder: str) -> None:
    """Remove a folder and the files in it.

    Raises:
        OSError: a file cannot be removed.
    """
    remove(*(os.path.join(folder, name) for name in names(folder)))
    if not is_object(folder):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def read_file(path: str) -> bytes:
    """All bytes of a checkpoint: a local file, an object, or what else Beam's filesystems read.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if is_remote(path) and not is_object(path):
            from apache_beam.io.filesystems import FileSystems

            with FileSystems.open(path) as remote:
                return remote.read()
        if not is_remote(path) and os.path.exists(path) and not os.path.isfile(path):
            raise OSError(0, "it is not a file")  # reading a named pipe would wait for ever
        return read_bytes(path)
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"cannot read the checkpoint {path}: {reason}") from None


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
