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
    """Compare the columns of `right` with those of a table that has the same rows; NaN equals NaN."""
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
    texts = [f"column {name!r} does not belong there" for name in found.names if name not in right.names]
    for field in right:
        if (number := found.names.count(field.name)) != 1:
            texts.append(f"has {'more than one' if number else 'no'} column {field.name!r}")
        elif (kind := _type(found.field(field.name))) != _type(field):
            texts.append(f"column {field.name!r} is of type {kind}, and should be {_type(field)}")
    if not texts and found.names != right.names:
        texts.append("has its columns in another order")
    findings.some(file, texts)
    return not texts


def _type(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"
