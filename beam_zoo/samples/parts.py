"""Parts: immutable files, each with the results of one snippet.

A part of samples has one row per (galaxy, member, pass), in the order of the catalogue, and the failures of
its snippet in the file's metadata. A part of representations is one file for each member, with one row per
galaxy. Galaxies that were retried with success are in an added part: `part-0000012_1.parquet` beside
`part-0000012.parquet`. `part_writer.py` writes parts.
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
from beam_zoo.samples.records import PartRef
from beam_zoo.storage.files import exists, for_arrow, names, read_bytes
from beam_zoo.storage.layout import REPRESENTATIONS, SAMPLES, attempt_of, part_name, part_number

Stored = dict[int, list[PartRef]]
"""Snippet number -> its stored parts, the added ones last."""

_METADATA = b"beam_zoo"
_DIGEST = b"beam_zoo_sha256"  # Parquet's checksums cover pages only, not metadata.


def folders(plan: Plan) -> list[str]:
    """The folders, below the output, that have a file for every stored snippet."""
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
    """Whether the part of this snippet (and attempt) is stored by now, perhaps by another job."""
    name = part_name(snippet.number, snippet.attempt)
    return all(exists(os.path.join(output, folder, name)) for folder in folders(plan))


def galaxies_digest(ids: list[str]) -> str:
    """SHA-256 of the ids of a part's galaxies, in their order."""
    return hashlib.sha256("\0".join(ids).encode()).hexdigest()


def columns_of(plan: Plan, output: str) -> pa.Schema:
    """The columns of a part; of representations without `feature`, whose length depends on the member."""
    if plan.command == "represent":
        return pa.schema([pa.field("id_str", pa.string()), *plan.carried_schema(output)])
    types = {"id_str": pa.string(), "member": pa.string(), "pass": pa.int32()}
    types |= dict.fromkeys(plan.outputs, pa.float32())
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


def metadata_of(content: dict[str, Any]) -> dict[bytes, bytes | str]:
    """Metadata of a part's file, with a checksum, from which `read_metadata` gets the content back."""
    text = json.dumps(content).encode()
    return {_METADATA: text, _DIGEST: hashlib.sha256(text).hexdigest()}


def read_metadata(schema: pa.Schema) -> dict[str, Any]:
    """A part's metadata: `fingerprint`, `snippet`, `attempt`, `failures`, and `galaxies` (a digest of ids).

    Raises:
        KeyError: there is none.
        ValueError: it is damaged.
    """
    found = schema.metadata or {}
    text = found[_METADATA]
    if hashlib.sha256(text).hexdigest() != found[_DIGEST].decode():
        raise ValueError("its metadata has another checksum")
    return json.loads(text)


def to_parquet(table: pa.Table, compression: str = "none") -> pa.Buffer:
    """A table as the bytes of a Parquet file with page checksums; equal tables give equal bytes."""
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
    """A part that was read and verified.

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
    """Read a stored part, and verify its checksums, columns, run and galaxies.

    Raises:
        UserError: it is missing, damaged, of another run, or incomplete.
    """
    path = os.path.join(output, folder, ref.name)
    try:
        table, file_digest = _read(path)
        metadata = read_metadata(table.schema)
        columns = table.drop_columns(["feature"]) if plan.command == "represent" else table
        valid = [columns_of(plan, output)]
        if plan.command != "represent":  # earlier versions wrote all columns as nullable ones
            valid.append(pa.schema([field.with_nullable(True) for field in valid[0]]))
        if not any(columns.schema.equals(schema) for schema in valid):
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
        rows = len(offsets) * per_galaxy
        raise UserError(f"{path} has {table.num_rows} rows and should have {rows}: delete it and run again")
    return Part(table, offsets, failures, file_digest)


def digest(output: str, folder: str, ref: PartRef) -> str:
    """SHA-256 of a part's file, after its pages' checksums are verified.

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
    """The failures of a part, read from its file's footer only.

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
    """Refuse files of representations, one for each member, that have different galaxies."""
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
