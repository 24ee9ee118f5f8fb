"""Versions of this program, and of the libraries that may change the last digits of a number."""

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

from beam_zoo.errors import UserError

LIBRARIES = (
    "beam-zoo",
    "apache-beam",
    "torch",
    "torchvision",
    "timm",
    "zoobot",
    "galaxy-datasets",
    "pyarrow",
    "numpy",
    "scipy",
    "pillow",
    "numba",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvjpeg",
)


def versions() -> dict[str, str | None]:
    """Version of every library, and of Python; None for one that is not installed as a package."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def changes(before: dict[str, str | None], now: dict[str, str | None]) -> str:
    """The libraries whose versions differ, as `torch 2.13 then, 2.14 now`."""
    names = [name for name in now if before.get(name) != now[name]]
    return "; ".join(f"{name} {before.get(name)} then, {now[name]} now" for name in names)


@functools.cache
def source() -> str:
    """SHA-256 of this package's source files."""
    digest = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for file in sorted(folder.glob("**/*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def check_source(wanted: str) -> None:
    """Check, in a worker, that it has the same source as the command: pickled steps may not fit another.

    Args:
        wanted: `source()` of the command, or an empty text if workers share its files.

    Raises:
        UserError: the worker has another source.
    """
    if wanted and wanted != source():
        raise UserError(
            "the workers' image holds another version of this program "
            "than the one that submitted the job: build it anew"
        )
