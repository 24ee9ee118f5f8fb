"""Immutable parts: one file holds all there is to know about a snippet, and is never replaced.

A part of samples has one row per (galaxy, member, pass), in the order of the catalogue, and the failures of
its snippet in the file's metadata. A part of representations has one row per galaxy, and one such file per
member. Galaxies whose failure passed get an added part: `part-0000012_1.parquet` beside `part-0000012.parquet`.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.errors import RunFailed, UserError, is_out_of_reach, one_line
from beam_zoo.images.failure import Failure
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.snippet import Snippet
from beam_zoo.samples.records import Batch, PartRef
from beam_zoo.storage.files import exists, for_arrow, names, publish, read_bytes, remove
from beam_zoo.storage.layout import REPRESENTATIONS, RETRY, SAMPLES, attempt_of, part_name, part_number

Stored = dict[int, list[PartRef]]
"""Snippet number -> its stored parts, the added ones last."""

_METADATA = b"beam_zoo"
_DIGEST = b"beam_zoo_sha256"  # Parquet's checksums cover its pages, not its metadata.


def folders(plan: Plan) -> list[str]:
    """The folders, below the output, that hold a file for every stored snippet."""
    if plan.command == "represent":
        return [f"{REPRESENTATIONS}/{member.name}" for member in plan.members]
    return [SAMPLES]


def stored_parts(plan: Plan, output: str) -> Stored:
    """Every snippet's stored parts, by listing the folders once.

    Returns:
        snippet number -> its parts, the added ones last. A snippet counts as stored when each of the
        folders has its part.
    """
    there: set[str] | None = None
    for folder in folders(plan):
        try:
            found = set(names(os.path.join(output, folder)))
        except NotADirectoryError:
            raise UserError(f"{os.path.join(output, folder)} is a file, not a folder: move it away") from None
        there = found if there is None else there & found
    parts: Stored = {}
    for name in there or ():
        number, attempt = part_number(name) or (-1, 0)
        if number >= 0 and name == part_name(number, attempt):
            parts.setdefault(number, []).append(PartRef(number, name))
    for refs in parts.values():
        refs.sort(key=lambda ref: attempt_of(ref.name))
    return parts


def missing_ranges(stored: Stored, count: int) -> list[str]:
    """The snippets of a run of `count` that are not stored, as slices `A:B`."""
    missing = [number for number in range(count) if number not in stored]
    ranges: list[list[int]] = []
    for number in missing:
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    return [f"{first}:{last}" for first, last in ranges]


def is_stored(plan: Plan, output: str, snippet: Snippet) -> bool:
    """Whether the part of this snippet (and attempt) is there by now, perhaps from another job."""
    name = part_name(snippet.number, snippet.attempt)
    return all(exists(os.path.join(output, folder, name)) for folder in folders(plan))


def write_parts(plan: Plan, output: str, snippet: Snippet, batches: list[Batch]) -> PartRef | None:
    """Store a whole snippet: its samples (or features) and failures, durable when this returns.

    Args:
        plan: the plan of the run.
        output: folder of the output.
        snippet: the snippet, or some of its galaxies that are tried again.
        batches: all of its batches, in any order; together they hold each of its galaxies once.

    Returns:
        The part's reference, or None if galaxies were tried again and none succeeded.

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
    _remove_other_galaxies(plan, output, name, metadata)
    for folder, table in zip(folders(plan), tables, strict=True):
        publish(os.path.join(output, folder, name), to_parquet(_with_metadata(table, metadata)))
    return PartRef(snippet.number, name)


def galaxies_digest(ids: list[str]) -> str:
    """SHA-256 of the ids of a part's galaxies, in their order."""
    return hashlib.sha256("\0".join(ids).encode()).hexdigest()


def _with_metadata(table: pa.Table, metadata: dict[str, Any]) -> pa.Table:
    text = json.dumps(metadata).encode()
    return table.replace_schema_metadata({_METADATA: text, _DIGEST: hashlib.sha256(text).hexdigest()})


def read_metadata(schema: pa.Schema) -> dict[str, Any]:
    """What a part says of itself, as `write_parts` put it there.

    Raises:
        KeyError: it says nothing.
        ValueError: it is damaged.
    """
    found = schema.metadata or {}
    text = found[_METADATA]
    if hashlib.sha256(text).hexdigest() != found[_DIGEST].decode():
        raise ValueError("its metadata has another checksum")
    return json.loads(text)


def _never_null(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(False) for field in schema])


def _columns(plan: Plan, output: str) -> pa.Schema:
    """The columns that a part must have; the length of a feature is the encoder's own."""
    if plan.command == "represent":
        return pa.schema([pa.field("id_str", pa.string()), *plan.carried_schema(output)])
    keys = [pa.field("id_str", pa.string()), pa.field("member", pa.string()), pa.field("pass", pa.int32())]
    return pa.schema([*keys, *(pa.field(answer, pa.float32()) for answer in plan.outputs)])


def _remove_other_galaxies(plan: Plan, output: str, name: str, metadata: dict[str, Any]) -> None:
    """Of representations only some members' files may be there: a stop came between them, so that they are no part yet.

    They are kept if they hold the same galaxies. If not (an image has come or gone since), members would have
    different galaxies: they are made again.
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
    return pa.table(arrays, schema=_never_null(_columns(plan, output)))


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


def to_parquet(table: pa.Table, compression: str = "none") -> pa.Buffer:
    """A table as the bytes of a Parquet file, with a checksum in every page; the same bytes for the same table."""
    few = [f.name for f in table.schema if not (pa.types.is_floating(f.type) or pa.types.is_nested(f.type))]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=max(1, table.num_rows),
        compression=compression,
        use_dictionary=few,
        write_statistics=False,
        write_page_checksum=True,
    )
    return sink.getvalue()


@dataclasses.dataclass(frozen=True)
class Part:
    """A part that was read and believed.

    Attributes:
        table: its rows.
        offsets: row within the snippet of every predicted galaxy, shape (galaxy,).
        failures: the galaxies that it has no samples of.
        sha256: of the file.
    """

    table: pa.Table
    offsets: np.ndarray
    failures: list[Failure]
    sha256: str


def read_part(plan: Plan, output: str, folder: str, ref: PartRef) -> Part:
    """Read a stored part and check all that makes it believable.

    Raises:
        UserError: it is missing, damaged, of another run, or incomplete.
    """
    path = os.path.join(output, folder, ref.name)
    try:
        table, file_digest = _read(path)
        metadata = read_metadata(table.schema)
        columns = table.drop_columns(["feature"]) if plan.command == "represent" else table
        known = [_columns(plan, output)]
        if plan.command != "represent":
            known.append(_never_null(known[0]))  # as they are written; earlier versions left it open
        if not any(columns.schema.equals(schema) for schema in known):
            raise ValueError("it has other columns")
        failures = [Failure(*failure) for failure in metadata["failures"]]
    except Exception as error:
        raise _damaged(path, error) from None
    _check_other_members(plan, output, folder, ref, metadata)
    if metadata["fingerprint"] != plan.fingerprint or metadata["snippet"] != ref.snippet:
        raise UserError(f"{path} belongs to another run: remove it and run the same command again")
    per_galaxy = 1 if plan.command == "represent" else len(plan.members) * plan.passes
    snippet = plan.snippet(ref.snippet)
    failed = {failure.offset for failure in failures}
    if metadata["attempt"]:
        offsets = _offsets_by_id(plan, output, snippet, table.column("id_str").to_pylist()[::per_galaxy])
    else:
        offsets = np.array([o for o in snippet.offsets if o not in failed], np.int64)
    if len(offsets) * per_galaxy != table.num_rows:
        raise UserError(
            f"{path} has {table.num_rows} rows and should have {len(offsets) * per_galaxy}: delete it and run again"
        )
    return Part(table, offsets, failures, file_digest)


def digest(output: str, folder: str, ref: PartRef) -> str:
    """SHA-256 of a part's file, whose pages have passed their checksums.

    Raises:
        UserError: it is missing or damaged.
    """
    path = os.path.join(output, folder, ref.name)
    try:
        return _read(path)[1]
    except Exception as error:
        raise _damaged(path, error) from None


def _read(path: str) -> tuple[pa.Table, str]:
    """A file's table, with the checksums of its pages verified, and the file's SHA-256."""
    data = read_bytes(path)
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    return file.read(use_threads=False), hashlib.sha256(data).hexdigest()


def read_failures(path: str) -> list[Failure]:
    """The failures of a part, from its file's footer alone.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return [Failure(*failure) for failure in read_metadata(pq.read_schema(for_arrow(path)))["failures"]]
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> Exception:
    if isinstance(error, RunFailed):
        return error
    if is_out_of_reach(error):
        return UserError(f"cannot read {path}: {getattr(error, 'strerror', error)}")
    return UserError(f"{path} is damaged ({one_line(error, 200)}): delete it and run the same command again")


def _check_other_members(
    plan: Plan, output: str, folder: str, ref: PartRef, metadata: dict[str, Any]
) -> None:
    """All members' files of a snippet must hold the same galaxies."""
    for other in folders(plan):
        if other == folder:
            continue
        path = os.path.join(output, other, ref.name)
        try:
            found = read_metadata(pq.read_schema(for_arrow(path)))
        except Exception as error:
            raise _damaged(path, error) from None
        if any(found[key] != metadata[key] for key in ("fingerprint", "galaxies", "failures")):
            raise UserError(
                f"{path} and {os.path.join(output, folder, ref.name)} hold different galaxies: "
                "delete both and run the same command again"
            )


def _offsets_by_id(plan: Plan, output: str, snippet: Snippet, ids: list[str]) -> np.ndarray:
    where = {galaxy: offset for offset, galaxy in enumerate(plan.read_ids(output, snippet).to_pylist())}
    return np.array([where[galaxy] for galaxy in ids], np.int64)
