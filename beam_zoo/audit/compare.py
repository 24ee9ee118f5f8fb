"""Comparisons of what is there with what should be: entries of the manifest, columns, galaxies, values."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from beam_zoo.audit.elements import Element
from beam_zoo.audit.findings import Findings
from beam_zoo.catalogue.read import ID
from beam_zoo.errors import one_line
from beam_zoo.storage.layout import MANIFEST

TOLERANCE = 1e-6
"""Of numbers, for the noise of float32; relative where they are above 1."""


def close(found: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which numbers are equal but for the noise of float32; NaN equals NaN."""
    near = np.abs(found - right) <= TOLERANCE * np.maximum(1, np.abs(right))
    return near | (np.isnan(found) & np.isnan(right)) | (found == right)


def compare_entries(
    found: dict[str, Any],
    right: dict[str, Any],
    says: str,
    findings: Findings,
    before: str = "",
    after: str = "",
) -> None:
    """Find entries of the manifest that are not what they should be.

    Args:
        found: the manifest, or a part of it.
        right: what it should have.
        says: names what it is compared with, for example `and the plan says`.
        findings: takes the lines.
        before, after: stand before and after an entry's name.
    """
    for name, value in right.items():
        if json.dumps(found.get(name), sort_keys=True) != json.dumps(value, sort_keys=True):
            ours, theirs = (one_line(repr(each), 80) for each in (found.get(name), value))
            findings.add(MANIFEST, f"{before}{name}{after} is {ours}, {says} {theirs}")


def compare_listed(file: str, element: Element, found: dict[str, Any], findings: Findings) -> None:
    """Compare a file of a table part with what the manifest says of it."""
    if file not in element.listed:
        findings.add(file, "is not listed in manifest.json")
        return
    entry = element.listed[file]
    for key, value in found.items():
        if entry.get(key) != value:
            findings.add(file, f"{key}: manifest.json says {entry.get(key)!r}, found {value!r}")


def compare_columns(file: str, found: pa.Table, right: pa.Table, findings: Findings) -> None:
    """Find values that are not what they should be, in tables with the same rows; NaN equals NaN.

    Args:
        file: that the table is from.
        found: has `id_str` and the columns of the other table.
        right: what the columns should hold.
        findings: takes the lines.
    """
    for name in right.column_names:
        if not found.column(name).equals(right.column(name)):
            ids = found.column(ID).to_pylist()
            values = found.column(name).to_pylist(), right.column(name).to_pylist()
            findings.some(file, _differences(name, ids, *values))


def _differences(name: str, ids: list[str], ours: list[Any], theirs: list[Any]) -> Iterator[str]:
    for row, (galaxy, mine, right) in enumerate(zip(ids, ours, theirs, strict=True)):
        if mine != right and repr(mine) != repr(right):
            text = f"{name} is {one_line(repr(mine), 80)} and should be {one_line(repr(right), 80)}"
            yield f"row {row}: {text}" if name == ID else f"galaxy {galaxy!r}: {text} (row {row})"


def compare_schemas(file: str, found: pa.Schema, right: pa.Schema, findings: Findings) -> bool:
    """Whether a table has the right columns; what is wrong with them is found."""
    if found.equals(right):
        return True

    def texts() -> Iterator[str]:
        for name in right.names:
            if found.names.count(name) != 1:
                yield f"has {'no' if name not in found.names else 'more than one'} column {name!r}"
            elif (kind := found.field(name).type) != right.field(name).type:
                yield f"column {name!r} is of type {kind}, and should be {right.field(name).type}"
        yield from (
            f"column {name!r} does not belong there" for name in found.names if name not in right.names
        )
        if found.names != right.names and sorted(found.names) == sorted(right.names):
            yield "has its columns in another order"

    findings.some(file, texts())
    return False


def align(
    file: str,
    found: list[str],
    right: list[str],
    others: set[str],
    unknown: set[str],
    because: str,
    findings: Findings,
) -> np.ndarray:
    """Find the rows of the galaxies that a table should have; missing, foreign and misplaced ones are findings.

    Args:
        file: that the table is from.
        found: ids of its galaxies.
        right: ids of the galaxies that it should have, in order.
        others: ids of the plan's other galaxies of the table part.
        unknown: ids of galaxies of which nothing says whether the table should have them.
        because: why it should not have the others.
        findings: takes the lines.

    Returns:
        For each galaxy of `right` its first row in the table, or -1; int64, shape (galaxy,).
    """
    if found == right:
        return np.arange(len(right))
    rows: dict[str, list[int]] = {}
    for row, galaxy in enumerate(found):
        rows.setdefault(galaxy, []).append(row)
    ours = set(right)
    twice = [galaxy for galaxy in rows if len(rows[galaxy]) > 1]
    findings.some(file, (f"galaxy {g!r} is a duplicate: it is in rows {rows[g]}" for g in twice))
    foreign = [galaxy for galaxy in rows if galaxy not in ours | others]
    findings.some(file, (f"galaxy {g!r} is unknown to the plan of this part" for g in foreign))
    surplus = [galaxy for galaxy in rows if galaxy in others - unknown]
    findings.some(file, (f"galaxy {g!r} is here, and {because}" for g in surplus))
    findings.some(file, (f"galaxy {g!r} is missing" for g in right if g not in rows))
    order = [
        (g, r) for g, r in zip((g for g in rows if g in ours), (g for g in right if g in rows), strict=True)
    ]
    if swapped := [(g, r) for g, r in order if g != r]:
        first, place = swapped[0]
        text = f"galaxies are not in the order of the plan, first {first!r} in the place of {place!r}"
        findings.add(file, f"{len(swapped):,} {text}")
    return np.array([rows.get(galaxy, [-1])[0] for galaxy in right], np.int64)
