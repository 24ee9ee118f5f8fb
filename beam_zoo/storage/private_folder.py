"""Folders that only this user may enter: they hold code that is run, keys or passwords."""

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePath

ANYTHING, WRITE, ENTER = 0o077, 0o022, 0o011
"""Bits of a folder's mode: what others may do there."""


def fault(path: str, forbidden: int = ANYTHING) -> str | None:
    """What is wrong with a folder of this user's; it is made with mode 700 if it is not there.

    Args:
        path: of the folder; a link is none.
        forbidden: bits that its mode must not have.

    Raises:
        OSError: it cannot be made, or looked at.
    """
    _make(path)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is not a folder"
    if found.st_uid != os.geteuid():
        return f"{path} is somebody else's"
    change = "go-w" if forbidden == WRITE else "700"
    return f"{path} is open to others (chmod {change})" if found.st_mode & forbidden else None


def fault_on_the_way(path: str, forbidden: int = ANYTHING) -> str | None:
    """As `fault`, and what is wrong above it: folders and links by which others could replace it.

    Args:
        path: of the folder, absolute; folders above it are made, too.
        forbidden: bits that its mode must not have.

    Raises:
        OSError: one of them cannot be made, or looked at.
    """
    return _walk(path, lambda end: fault(end, forbidden))


def _walk(path: str, fault_of_end: Callable[[str], str | None]) -> str | None:
    # Below a closed folder, such as a home of mode 700, nobody else can replace anything.
    closed = False
    for part in map(str, [*reversed(PurePath(path).parents), PurePath(path)]):
        fault_here = fault_of_end if part == str(PurePath(path)) else _fault_above
        _make(part)
        if os.path.basename(part) == "..":
            closed = False
        if os.path.islink(part):
            if not _is_trusted(os.lstat(part).st_uid):
                return f"{part} is somebody else's link"
            os.stat(part)  # a link that leads nowhere, or in a circle, is an error
            wrong = _walk(os.path.join(os.path.dirname(part), os.readlink(part)), fault_here)
            closed = False  # it may have led out
        elif os.path.isdir(part):
            wrong = None if closed and fault_here is _fault_above else fault_here(part)
            closed = closed or not os.stat(part).st_mode & ENTER
        else:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), part)
        if wrong:
            return wrong
    return None


def _make(path: str) -> None:
    if not os.path.lexists(path):
        with contextlib.suppress(FileExistsError):  # by another process, just now
            os.mkdir(path, 0o700)


def _fault_above(path: str) -> str | None:
    found = os.lstat(path)
    if not _is_trusted(found.st_uid):
        return f"{path} is somebody else's"
    # With the sticky bit, as on /tmp, only the owner of a file can replace it.
    writable = found.st_mode & WRITE and not found.st_mode & stat.S_ISVTX
    return f"{path} can be written to by others (chmod go-w)" if writable else None


def _is_trusted(owner: int) -> bool:
    """Whether what is on the way may have this owner."""
    return owner in (os.geteuid(), *_roots())


@functools.cache
def _roots() -> tuple[int, ...]:
    # In the user namespace of an unprivileged container the machine's root has the overflow id.
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]:
        return (0,)
    return 0, int(Path("/proc/sys/kernel/overflowuid").read_text())


def others_may_write_by_default() -> bool:
    """Whether this process's umask lets others write to what it makes."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask:")
    )
    return int(line.split()[1], 8) & WRITE != WRITE
