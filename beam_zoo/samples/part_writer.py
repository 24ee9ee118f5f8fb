"""Writes parts, see `parts.py`: the batches of a snippet become its file, or one file for each member."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.errors import is_out_of_reach
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.snippet import Snippet
from beam_zoo.samples.parts import (
    columns_of,
    folders,
    galaxies_digest,
    metadata_of,
    read_metadata,
    to_parquet,
)
from beam_zoo.samples.records import Batch, PartRef
from beam_zoo.storage.files import exists, for_arrow, publish, remove
from beam_zoo.storage.layout import RETRY, part_name


def write_parts(plan: Plan, output: str, snippet: Snippet, batches: Sequence[Batch]) -> PartRef | None:
    """Store a whole snippet: its samples (or features) and failures; they are durable when this returns.

    Args:
        plan: the plan of the run.
        output: folder of the output.
        snippet: the snippet, or some of its galaxies that are retried.
        batches: all of its batches, in any order; together they have each of its galaxies once.

    Returns:
        The part's reference, or None if galaxies were retried and none succeeded.

    Raises:
        StorageFull: the disk or the quota is full.
    """
    galaxies = np.concatenate([batch.offsets for batch in batches])
    order = np.argsort(galaxies, kind="stable")
    failures = sorted((f for batch in batches for f in batch.failures), key=lambda f: f.offset)
    found = sorted([*galaxies.tolist(), *(f.offset for f in failures)])
    if found != sorted(snippet.offsets):
        raise AssertionError(f"snippet {snippet.number}: batches hold other galaxies than the plan")
    if snippet.attempt and not len(galaxies):
        return None
    outputs = {
        member.name: np.concatenate([batch.outputs[member.name] for batch in batches])
        for member in plan.members
    }
    if (order[1:] < order[:-1]).any():
        outputs = {name: values[order] for name, values in outputs.items()}
    offsets = galaxies[order]
    chosen = plan.read_ids(output, snippet).take(pa.array(offsets))
    metadata = {
        "fingerprint": plan.fingerprint,
        "snippet": snippet.number,
        "attempt": snippet.attempt,
        "failures": [list(dataclasses.astuple(failure)) for failure in failures],
        "galaxies": galaxies_digest(chosen.to_pylist()),
    }
    name = part_name(snippet.number, snippet.attempt)
    if plan.command == "represent":
        carried = plan.read_carried(output, snippet.number) if plan.carried else None
        tables = [_features_table(chosen, offsets, carried, outputs[m.name]) for m in plan.members]
    else:
        tables = [_samples_table(plan, output, chosen, outputs)]
    if any(failure.may_pass for failure in failures):
        publish(os.path.join(output, RETRY, f"{snippet.number:07d}"), b"", replace=True)
    _remove_unfinished(plan, output, name, metadata)
    for folder, table in zip(folders(plan), tables, strict=True):
        table = table.replace_schema_metadata(metadata_of(metadata))
        publish(os.path.join(output, folder, name), to_parquet(table))
    return PartRef(snippet.number, name)


def _remove_unfinished(plan: Plan, output: str, name: str, metadata: dict[str, Any]) -> None:
    """Remove files of an unfinished part of representations that have other galaxies than the new part.

    A run that was stopped may have written the files of some members only. If an image has appeared or
    disappeared since, the other members' files would have other galaxies.
    """
    paths = [os.path.join(output, folder, name) for folder in folders(plan)]
    if len(paths) == 1:
        return
    there = [path for path in paths if exists(path)]
    if len(there) == len(paths):
        return
    for path in there:
        try:
            found = read_metadata(pq.read_schema(for_arrow(path)))
            same = all(found[key] == metadata[key] for key in ("galaxies", "failures"))
        except Exception as error:
            if is_out_of_reach(error):
                raise
            same = False
        if not same:
            remove(path)


def _samples_table(plan: Plan, output: str, ids: pa.Array, outputs: dict[str, np.ndarray]) -> pa.Table:
    """One row per (galaxy, member, pass), from a (galaxy, pass, answer) array of each member."""
    members, passes, galaxies = len(outputs), plan.passes, len(ids)
    shape = galaxies, passes, len(plan.outputs)
    for name, values in outputs.items():
        if values.shape != shape:
            raise AssertionError(f"member {name} gave outputs of shape {values.shape}, not {shape}")
    samples = np.stack([outputs[member.name] for member in plan.members], axis=1)
    columns = np.ascontiguousarray(
        samples.reshape(galaxies * members * passes, len(plan.outputs)).T, np.float32
    )
    each = np.repeat(np.arange(galaxies, dtype=np.int32), members * passes)
    which = np.tile(np.repeat(np.arange(members, dtype=np.int32), passes), galaxies)
    names = pa.array([member.name for member in plan.members], pa.string())
    numbers = np.tile(np.array(plan.pass_numbers, np.int32), galaxies * members)
    arrays = [ids.take(pa.array(each)), names.take(pa.array(which)), pa.array(numbers)]
    arrays += [pa.array(column) for column in columns]
    return pa.table(arrays, schema=columns_of(plan, output))


def _features_table(
    ids: pa.Array, offsets: np.ndarray, carried: pa.Table | None, features: np.ndarray
) -> pa.Table:
    """One row per galaxy, from a (galaxy, feature) array."""
    table = pa.table({"id_str": ids})
    if carried is not None:
        chosen = carried.take(pa.array(offsets))
        for field in chosen.schema:
            table = table.append_column(field, chosen.column(field.name))
    values = pa.array(np.ascontiguousarray(features, np.float32).reshape(-1))
    return table.append_column("feature", pa.FixedSizeListArray.from_arrays(values, features.shape[1]))
