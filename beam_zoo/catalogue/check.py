"""Checks a catalogue's rows in one pass: ids, duplicates, image paths outside the root, a fingerprint."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from beam_zoo.catalogue.read import ID, LOCATION, Catalogue, limited
from beam_zoo.errors import UserError
from beam_zoo.images.decode import is_outside
from beam_zoo.storage.files import is_remote

_HASH_RANGES = 16
"""Into so many ranges hashes are split to find duplicates, one range at a time; a power of two."""


class Checker:
    """Reads the normalised rows once: counts and checks them, and computes the content's fingerprint.

    Args:
        root: the folder that relative image paths start from.
        root_given: whether the user named it: absolute paths elsewhere then count as outside.
        allow_outside: whether image paths may leave the root.
        remote: whether to refuse local paths, which workers on other machines cannot read.
    """

    def __init__(self, root: str, *, root_given: bool, allow_outside: bool, remote: bool = False) -> None:
        self.rows = 0
        self._root = root
        self._root_given = root_given
        self._allow_outside = allow_outside
        self._remote = remote
        self._missing = 0
        self._local = 0
        self._first_local = ""
        self._outside = 0
        self._first_outside = ""
        self._hashes: list[np.ndarray] = []
        self._content = [hashlib.sha256() for _ in range(4)]

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the next rows."""
        ids, locations = batch.column(ID), batch.column(LOCATION).fill_null("")
        self.rows += len(batch)
        self._missing += ids.null_count + (pc.sum(pc.equal(ids, "")).as_py() or 0)
        if not self._allow_outside:
            self._find_outside(locations)
        if self._remote:
            self._find_local(locations)
        ids = ids.fill_null("")
        self._hashes.append(np.sort(_hashes(ids)))
        for position, column in enumerate((ids, locations)):
            lengths, content = _buffers(column)
            self._content[2 * position].update(lengths)
            self._content[2 * position + 1].update(content)

    def _find_outside(self, locations: pa.Array) -> None:
        absolute = pc.or_(pc.starts_with(locations, "/"), pc.match_substring(locations, "://"))
        climbing = pc.match_substring(locations, "..")
        suspects = pc.or_(climbing, absolute) if self._root_given else pc.and_not(climbing, absolute)
        for location in locations.filter(suspects).to_pylist():
            if is_outside(location, self._root):
                self._first_outside = self._first_outside or location
                self._outside += 1

    def _find_local(self, locations: pa.Array) -> None:
        afar = pc.match_substring(locations, "://")
        if is_remote(self._root):  # relative paths start there
            afar = pc.or_(afar, pc.invert(pc.starts_with(locations, "/")))
        local = locations.filter(pc.and_not(pc.not_equal(locations, ""), afar))
        self._local += len(local)
        if len(local) and not self._first_local:
            self._first_local = local[0].as_py()

    def finish(self, catalogue: Catalogue, limit: int | None) -> str:
        """The fingerprint of all rows: SHA-256 in hexadecimal.

        Raises:
            UserError: no rows, missing or duplicate ids, image paths outside the root.
        """
        name = catalogue.location
        if not self.rows:
            raise UserError(f"catalogue {name} has no rows")
        if self._missing:
            raise UserError(
                f"column {ID!r} of {name} is missing or empty in {self._missing:,} of {self.rows:,} rows"
            )
        suspects = _repeated(self._hashes)
        self._hashes.clear()
        if len(suspects):
            _refuse_duplicates(catalogue, limit, suspects)
        if self._local:
            raise UserError(
                f"{self._local:,} rows of {name} have a local {LOCATION} (first {self._first_local!r}), "
                "which workers of Dataflow do not see: put the images on gs:// and give --image_root"
            )
        if self._outside:
            raise UserError(
                f"{self._outside:,} rows of {name} have a {LOCATION} outside {self._root} "
                f"(first {self._first_outside!r}): give --image_root, or --allow_outside if that is meant"
            )
        total = hashlib.sha256()
        for part in self._content:
            total.update(part.digest())
        return total.hexdigest()


def _hashes(ids: pa.Array) -> np.ndarray:
    return pd.util.hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)


def _repeated(hashes: list[np.ndarray]) -> np.ndarray:
    """Hashes that occur more than once in sorted arrays, found without a second copy of all of them."""
    edges = np.arange(1, _HASH_RANGES, dtype=np.uint64) * np.uint64(2**64 // _HASH_RANGES)
    cuts = [[0, *np.searchsorted(array, edges), len(array)] for array in hashes]
    found = []
    for number in range(_HASH_RANGES):
        here = np.concatenate([a[c[number] : c[number + 1]] for a, c in zip(hashes, cuts, strict=True)])
        here.sort()
        found.append(np.unique(here[1:][here[1:] == here[:-1]]))
    return np.concatenate(found)


def _buffers(column: pa.Array) -> tuple[Any, Any]:
    """The strings' lengths and their bytes, which do not depend on the batches' sizes."""
    _, offsets, content = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    data = b"" if content is None else memoryview(content)[ends[0] : ends[-1]]
    return np.diff(ends).tobytes(), data


def _refuse_duplicates(catalogue: Catalogue, limit: int | None, suspects: np.ndarray) -> None:
    """Refuse duplicate ids among those with a repeated hash; two different ids may share a hash."""
    counts: Counter[str] = Counter()
    for batch in limited(catalogue.batches(), limit):
        ids = batch.column(ID)
        counts.update(ids.filter(pa.array(np.isin(_hashes(ids), suspects))).to_pylist())
    twice = {galaxy: number for galaxy, number in counts.items() if number > 1}
    if twice:
        first, number = next(iter(twice.items()))
        raise UserError(
            f"{len(twice):,} ids of {catalogue.location} are not unique: {first!r} stands in {number:,} "
            "rows; every galaxy needs an id of its own"
        )
