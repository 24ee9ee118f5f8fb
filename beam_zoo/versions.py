"""Versions of the libraries that may move a number in its last digits."""

import platform
from importlib import metadata

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
