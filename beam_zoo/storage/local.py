"""Local files that appear whole or not at all, and survive a power cut once a call returns.

Functions raise what the operating system raises, except where a file system has no hard links.
"""

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import uuid
from collections.abc import Iterator
from typing import Any

from beam_zoo.errors import UserError

LOGGER = logging.getLogger("beam_zoo")
CLAIM_SECONDS = 60
"""A claim to replace a file that is older belongs to a process that was killed."""
_UNSYNCED_DEVICES: set[int] = set()
"""File systems of which a warning has said that they do not sync folders."""


def publish(path: str, data: Any, *, replace: bool) -> bool:
    """Write a file under a temporary name, make it durable, then give it its name.

    Args:
        path: the final name; its folder is made if absent.
        data: the file's bytes.
        replace: whether a file of that name is replaced.

    Returns:
        Whether this call gave the file its name; False if there was one and `replace` is false.

    Raises:
        OSError: it cannot be written.
        UserError: the file system has no hard links.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    with _temporary(path, data) as temporary:
        if replace:
            os.replace(temporary, path)
        elif not _link(temporary, path):
            return False
    sync_folder(folder)
    return True


def compare_and_swap(path: str, before: bytes, after: bytes) -> bool:
    """Replace a file whose bytes are still those that were read: of several concurrent processes one wins.

    A process claims the file's content by a hard link, which only one process can make, also on NFS. The
    link's name is a hash of the content, so that a claim holds for that content only. A process that was
    killed leaves its claim behind: once it is older than `CLAIM_SECONDS`, the next name in a row is claimed.
    Stale claims are removed after that only, since two processes that remove one at once could both win.

    Args:
        path: the file.
        before: the bytes that were read.
        after: the new bytes.

    Returns:
        Whether this call replaced the file.

    Raises:
        OSError: it cannot be read or written.
        UserError: the file system has no hard links.
    """
    with _temporary(path, after) as temporary:
        claims = _claim(temporary, path, before)
        if not claims:
            return False
        try:
            # Another process may have replaced the file, and removed its claim, before this one claimed it.
            with open(path, "rb") as file:
                if file.read() != before:
                    return False
            os.replace(temporary, path)
        finally:
            _remove(*claims)
    sync_folder(os.path.dirname(path))
    return True


def _claim(temporary: str, path: str, content: bytes) -> list[str]:
    """Claim a file's content: paths of stale claims, then of this one; none if another process has it."""
    claims = []
    for attempt in itertools.count():
        claims.append(claim_path(path, content, attempt))
        if _link(temporary, claims[-1]):
            return claims
        try:
            # Both times are the file server's, whose clock may differ from this machine's.
            age = os.stat(temporary).st_ctime - os.stat(claims[-1]).st_ctime
        except FileNotFoundError:  # the other process has just replaced the file
            return []
        if age < CLAIM_SECONDS:
            return []
    raise AssertionError("unreachable")


def claim_path(path: str, content: bytes, attempt: int = 0) -> str:
    """Path of the link by which a process claims a file's content; it is named like a temporary file."""
    folder, name = os.path.split(path)
    digest = hashlib.sha256(b"%d " % attempt + content).hexdigest()
    return os.path.join(folder, f".{name}.{digest[:32]}")


def check_hard_links(folder: str) -> None:
    """Refuse a folder whose file system has no hard links, by which parts get their names. Leaves no file.

    Raises:
        OSError: the folder cannot be written.
        UserError: the file system has no hard links.
    """
    with _temporary(os.path.join(folder, "beam-zoo"), b"") as temporary:
        link = f"{temporary}.link"
        try:
            _link(temporary, link)
        finally:
            _remove(link)


@contextlib.contextmanager
def _temporary(path: str, data: Any) -> Iterator[str]:
    """A durable file beside `path`, under a unique name; removed at the end if it is still there."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        _remove(temporary)


def _link(temporary: str, path: str) -> bool:
    """Give a file a second name, and say whether that was possible: not where the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS repeats a request whose answer was lost: the name may be taken by this very link.
        with contextlib.suppress(FileNotFoundError):
            return os.path.samefile(temporary, path)
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        raise UserError(
            f"the file system of {path} has no hard links ({error.strerror}): use another --output"
        ) from None
    return True


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def sync_file(path: str) -> None:
    """Make the content of a file or a folder durable.

    Raises:
        OSError: it cannot be done.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: str) -> None:
    """Make names that were added to a folder durable. Where the file system cannot, one warning says so.

    Raises:
        OSError: it cannot be done for another reason.
    """
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
        device = os.stat(folder).st_dev
        if device not in _UNSYNCED_DEVICES:
            _UNSYNCED_DEVICES.add(device)
            LOGGER.warning(
                "the file system of %s does not sync folders: after a power cut the newest files may be "
                "missing there; the same command makes them again",
                folder,
            )
