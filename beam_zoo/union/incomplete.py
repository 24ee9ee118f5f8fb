"""Finds galaxies that lack samples, before any samples are read."""

import os
from collections.abc import Sequence

import numpy as np

from beam_zoo.catalogue.read import ID
from beam_zoo.errors import UserError
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage import layout
from beam_zoo.union.union import Source, Union
from beam_zoo.union.working_files import create_array


def refuse_incomplete(union: Union, stored: Sequence[parts.Stored], work: str) -> None:
    """Refuse a union if a galaxy lacks samples and did not fail in any run.

    Such a galaxy is missing in the catalogue of a run whose samples no other run has.

    Args:
        union: the union.
        stored: the parts of each run.
        work: folder for a file that is removed again.

    Raises:
        UserError: a galaxy lacks samples.
        StorageFull: the disk or the quota is full.
    """
    if len({source.plan.catalogue.sha256 for source in union.sources}) == 1:
        return
    path = os.path.join(work, "incomplete.npy")
    # First a bit for each run that has the galaxy, then 1 for each galaxy that is incomplete.
    flags = create_array(path, np.uint64, union.rows)
    for number, source in enumerate(union.sources):
        for rows in _row_ranges(source.plan.rows):
            flags[source.mapping.union_rows(rows.start, rows.stop)] |= np.uint64(1 << number)
    for rows in _row_ranges(union.rows):
        masks, which = np.unique(flags[rows.start : rows.stop], return_inverse=True)
        held = [tuple(n for n in range(len(union.sources)) if int(mask) >> n & 1) for mask in masks]
        lacking = np.array([bool(union.ensemble.missing(sources)) for sources in held])
        flags[rows.start : rows.stop] = lacking[which]
    for source, parts_ in zip(union.sources, stored, strict=True):
        for number, refs in parts_.items():
            snippet = source.plan.snippet(number)
            union_rows = source.mapping.union_rows(snippet.start, snippet.stop)
            if flags[union_rows].any():
                flags[union_rows[_failed_offsets(source, refs)]] = 0
    count, first = 0, None
    for rows in _row_ranges(union.rows):
        found = np.flatnonzero(flags[rows.start : rows.stop])
        count += len(found)
        if first is None and len(found):
            first = rows.start + int(found[0])
    del flags
    os.unlink(path)
    if first is not None:
        raise UserError(
            f"{count:,} of {union.rows:,} galaxies are not in all runs that have a member or pass (first "
            f"{_read_id(union, first)!r}): give --incomplete drop to list them in {layout.FAILURES}/, or "
            "--incomplete keep to take them with the samples that they have"
        )


def _failed_offsets(source: Source, refs: list[PartRef]) -> np.ndarray:
    """Offsets within a snippet of galaxies without samples, int64; of one part only the footer is read."""
    plan, output = source.plan, source.output
    if len(refs) == 1:
        path = os.path.join(output, layout.SAMPLES, refs[0].name)
        return np.array([failure.offset for failure in parts.read_failures(path)], np.int64)
    read = [parts.read_part(plan, output, layout.SAMPLES, ref) for ref in refs]
    failed = {failure.offset for part in read for failure in part.failures}
    return np.array(sorted(failed - {int(offset) for part in read for offset in part.offsets}), np.int64)


def _row_ranges(rows: int, size: int = 1 << 20) -> list[range]:
    return [range(start, min(rows, start + size)) for start in range(0, rows, size)]


def _read_id(union: Union, row: int) -> str:
    part = row // union.part_rows
    return union.read_table_rows("", part).column(ID)[row - part * union.part_rows].as_py()
