"""What tells a file from a changed one."""

import os
from typing import NamedTuple

from beam_zoo.storage import gcs
from beam_zoo.storage.files import is_object


class FileStamp(NamedTuple):
    """The same while a file is not changed.

    Attributes:
        path: of the file.
        size: bytes.
        changed: time of the last change, in ns; of an object its generation.
    """

    path: str
    size: int
    changed: int


def stamp(path: str) -> FileStamp:
    """The stamp of a file.

    Raises:
        OSError: there is none.
    """
    if is_object(path):
        return FileStamp(path, *gcs.stat(path))
    status = os.stat(path)
    return FileStamp(path, status.st_size, status.st_mtime_ns)
