"""What a plan knows of its catalogue: which files it was, what its rows were, and how they were checked."""

import dataclasses
from typing import Any, NamedTuple

from beam_zoo.storage.stamps import FileStamp


class KnownImage(NamedTuple):
    """An image that was opened at planning: a run that goes on must find the same.

    Attributes:
        location: its `file_loc`.
        sha256: of its file.
    """

    location: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class RowChecks:
    """The settings with which rows were checked: with others, they are read and checked again."""

    limit: int | None
    image_root_given: bool
    allow_outside: bool
    image_root: str
    snippet_size: int
    remote: bool


@dataclasses.dataclass(frozen=True)
class PlannedCatalogue:
    """The catalogue of a plan.

    Attributes:
        location: as the command named it.
        files: its files when it was read.
        checked: how its rows were checked; None in plans of 0.1.0, whose catalogues are read again.
        limit: the number of rows that were asked for, or None for all.
        sha256: of ids and locations.
        probes: images that were opened.
    """

    location: str
    files: tuple[FileStamp, ...]
    checked: RowChecks | None
    limit: int | None
    sha256: str
    probes: tuple[KnownImage, ...] = ()


def from_json(data: dict[str, Any]) -> PlannedCatalogue:
    """A catalogue as `plan.json` holds it."""
    checked = data["checked"]
    values = {
        "files": tuple(FileStamp(*stamp) for stamp in data["files"]),
        "checked": RowChecks(**checked) if isinstance(checked, dict) else None,
        "probes": tuple(KnownImage(*probe) for probe in data.get("probes", ())),
    }
    return PlannedCatalogue(**{**data, **values})
