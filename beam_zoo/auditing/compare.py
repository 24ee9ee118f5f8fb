"""Comparisons of a file with what it should hold: the manifest's entry, columns, values."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from beam_zoo.auditing.elements import Element
from beam_zoo.auditing.findings import Findings
from beam_zoo.catalogue.read import ID
from beam_zoo.errors import one_line

TOLERANCE = 1e-6
"""Of numbers, for the noise of float32; relative where they are above 1."""


def close(found: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which numbers are equal but for the noise of float32; NaN equals NaN."""
    with np.errstate(invalid="ignore"):
        near = np.abs(found - right) <= TOLERANCE * np.maximum(1, np.abs(right))
    if near.all():
        return near
    return near | (np.isnan(found) & np.isnan(right)) | (found == right)


def compare_listed(file: str, element: Element, found: dict[str, Any], findings: Findings) -> None:
    """Compare a file of a table part with what the manifest says of it."""
    entry = element.listed.get(file)
    if entry is None:
        findings.add(file, "is not listed in manifest.json")
        return
    for key, value in found.items():
        if entry.get(key) != value:
            findings.add(file, f"{key}: manifest.json says {entry.get(key)!r}, found {value!r}")


def compare_columns(file: str, found: pa.Table, right: pa.Table, findings: Findings) -> None:
    """Compare the values of tables with the same rows; NaN equals NaN.

    Args:
        file: that the table is from.
        found: has `id_str` and the columns of the other table.
        right: what the columns should hold.
        findings: takes the lines.
    """
    for name in right.column_names:
        if found.column(name).equals(right.column(name)):
            continue
        values = (found.column(ID), found.column(name), right.column(name))
        findings.some(file, _differences(name, *(column.to_pylist() for column in values)))


def _differences(name: str, ids: list[str], ours: list[Any], theirs: list[Any]) -> Iterator[str]:
    for row, (galaxy, mine, right) in enumerate(zip(ids, ours, theirs, strict=True)):
        if mine != right and repr(mine) != repr(right):
            text = f"{name} is {one_line(repr(mine), 80)} and should be {one_line(repr(right), 80)}"
            yield f"row {row}: {text}" if name == ID else f"galaxy {galaxy!r}: {text} (row {row})"


def compare_schemas(file: str, found: pa.Schema, right: pa.Schema, findings: Findings) -> bool:
    """Whether a table has the right columns; what is wrong with them is found."""

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

    if not found.equals(right):
        findings.some(file, texts())
    return found.equals(right)
