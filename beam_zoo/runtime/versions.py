"""Versions of the libraries that may move a number in its last digits, and of this program itself."""

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
    """SHA-256 of this package's source, as it is installed here."""
    digest = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for file in sorted(folder.glob("**/*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def check_source(wanted: str) -> None:
    """Called by a worker, before its first image.

    Args:
        wanted: digest of the source where the run was prepared, or an empty text where workers share it.

    Raises:
        UserError: the worker has other source: what was sent to it may mean something else there.
    """
    if wanted and wanted != source():
        raise UserError(
            "the workers' image holds another version of this program than the one that submitted the job: build it anew"
        )
