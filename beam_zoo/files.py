"""Files that are whole whenever they are there, and durable when a step says that it is done."""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

from beam_zoo.errors import StorageFull, UserError, one_line


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
    """Give a file its name when its bytes are safe on disk: whole, or not at all.

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
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    with storage(path):
        os.makedirs(folder, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        sync_folder(folder)
    return True


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write, or replace, a JSON file."""
    publish(path, json.dumps(content, indent=1, ensure_ascii=False).encode(), replace=True)


def sync_file(path: str) -> None:
    """Make a file's, or a folder's, content durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: str) -> None:
    """Make names that were added to a folder durable."""
    sync_file(folder)


def read_file(path: str) -> bytes:
    """All bytes of a local or remote file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if "://" in path:
            from apache_beam.io.filesystems import FileSystems

            with FileSystems.open(path) as remote:
                return remote.read()
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(0, "it is not a file")  # reading a named pipe would wait for ever
        with open(path, "rb") as local:
            return local.read()
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"cannot read the checkpoint {path}: {reason}") from None


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
