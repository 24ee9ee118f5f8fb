"""A few images are opened at planning: an unmounted disk, or other pictures, must not cost a day."""

import hashlib
import sys
from collections.abc import Iterator

from beam_zoo.catalogue.read import LOCATION, Catalogue, limited
from beam_zoo.errors import UserError
from beam_zoo.images.decode import ImageError, decode, image_path, read_bytes
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.planned_catalogue import KnownImage

PROBES = 16


def probe_new(
    catalogue: Catalogue, rows: int, limit: int | None, root: str, max_failure_fraction: float
) -> tuple[KnownImage, ...]:
    """Open images spread over the catalogue of a new run.

    Returns:
        Those that could be read.

    Raises:
        UserError: none can be opened, unless every failure is allowed.
    """
    return _open(_spread_over(catalogue, rows, limit), root, max_failure_fraction)


def probe_rest(plan: Plan, output: str, root: str, missing: list[int], max_failure_fraction: float) -> None:
    """Open images spread over the snippets that are to be predicted, and check that they are unchanged.

    Raises:
        UserError: none can be opened, or an image is another file than when the run was planned.
    """
    seen = False
    for location, digest in plan.catalogue.probes:
        try:
            found = hashlib.sha256(read_bytes(image_path(location, root))).hexdigest()
        except ImageError:
            continue  # Whether any image is there is found below.
        seen = True
        if found != digest:
            raise UserError(
                f"{image_path(location, root)} is not the image that it was when this run was planned: "
                "check --image_root, or use another --output for other images"
            )
    # Where the planned images are there, the disk is: what is left may well be nothing but missing files.
    galaxies = sum(plan.snippet(number).size for number in missing)
    if seen:
        max_failure_fraction = 1
    _open(_spread_over_rest(plan, output, missing, galaxies), root, max_failure_fraction)


def _positions(count: int) -> list[int]:
    return sorted({round(i * (count - 1) / (PROBES - 1)) for i in range(PROBES)})


def _spread_over(catalogue: Catalogue, rows: int, limit: int | None) -> Iterator[str]:
    wanted, start = _positions(rows), 0
    for batch in limited(catalogue.batches(), limit):
        inside = [row - start for row in wanted if start <= row < start + len(batch)]
        for row in inside:
            yield batch.column(LOCATION)[row].as_py() or ""
        start += len(batch)
        if start > wanted[-1]:
            return


def _spread_over_rest(plan: Plan, output: str, missing: list[int], galaxies: int) -> Iterator[str]:
    wanted, start = _positions(galaxies), 0
    for number in missing:
        snippet = plan.snippet(number)
        inside = [row - start for row in wanted if start <= row < start + snippet.size]
        if inside:
            _, locations = plan.read_rows(output, snippet)
            for row in inside:
                yield locations[row] or ""
        start += snippet.size


def _open(locations: Iterator[str], root: str, max_failure_fraction: float) -> tuple[KnownImage, ...]:
    found: list[KnownImage] = []
    opened = tried = 0
    reason = ""
    for location in locations:
        tried += 1
        try:
            if not location:
                raise ImageError(f"a row without {LOCATION}", may_pass=False)
            data = read_bytes(image_path(location, root))
            found.append(KnownImage(location, hashlib.sha256(data).hexdigest()))
            decode(data)
            opened += 1
        except ImageError as error:
            reason = reason or str(error)
    if opened or not tried:
        return tuple(found)
    if max_failure_fraction >= 1:
        print(f"warning: none of {tried} images can be opened, first: {reason}", file=sys.stderr)
        return tuple(found)
    raise UserError(
        f"none of {tried} images spread over what is to be predicted can be opened (first: {reason}): "
        "check --image_root, or give --max_failure_fraction 1 to go on all the same"
    )
