"""The plan of a run, below `OUT/_plan`: what is to be predicted, made once, then only read.

`rows-*/` holds the catalogue's rows as Parquet, one file per table part and one row group per snippet, so
that a worker reads just the rows of its snippet (of a bucket: the file). The columns carried into the tables lie beside them
in a folder of their own, because other carried columns change no sample. Both folders, and the staged checkpoints,
are named by what is in them: jobs that plan at the same time disturb each other nowhere, and `plan.json`,
written last and created if absent, says whose plan it is.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.errors import UserError, is_out_of_reach, one_line
from beam_zoo.members.member import Member, from_json, to_json
from beam_zoo.plan.rows import RowWriter, rows_file
from beam_zoo.plan.snippet import Snippet
from beam_zoo.storage.files import (
    compare_and_swap,
    exists,
    for_arrow,
    is_folder,
    is_object,
    publish,
    read_bytes,
    read_file,
    read_version,
    remove,
    remove_folder,
    sha256,
    to_json_bytes,
    write_json,
)
from beam_zoo.storage.layout import PLAN, PLAN_FILE

FORMAT = 2
BATCHED = "batched"
MEDIAN, MIXTURE = INTERVALS = ("median", "mixture")
"""Which 90% interval the tables have: the medians over the samples of their bounds, as zoobot has it, or that of the mixture."""
TABLE_ROWS = 16_384
"""A table part holds whole snippets, and about this many rows: 9 MB of the advanced table of 34 answers."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run predicts. Everything in it that can move a number is part of `fingerprint`.

    Attributes:
        command: `predict` or `represent`.
        rows: number of the catalogue's rows.
        catalogue: `location`, `files` (path, size, time), `limit`, and `sha256` of ids and locations.
        image_root: where relative image paths started when the plan was made.
        snippet_size: rows of a snippet.
        members: the ensemble, in the order of the command line.
        first_pass, passes: numbers of the passes are range(first_pass, first_pass + passes).
        seed: of all random draws.
        precision: of the encoder.
        carried: names of the columns carried into the tables.
        carried_digest: SHA-256 of their content, or an empty string.
        versions: of the libraries that the run began with.
        interval: which 90% interval the tables have, see `beam_zoo.tables.statistics.Tree`.
        table_rows_wanted: about how many rows a table part holds; kept, because the plan's files are cut so.
        compile: whether encoders are compiled.
        fast_images: whether large JPEGs are decoded to fewer pixels, see `beam_zoo.images.views.least_side`, and with `fast_views` others by
            a GPU, see `beam_zoo.images.gpu.card_decoder`.
        fast_views: `batched` if views are made many at a time by `beam_zoo.images.fast_views`; False for galaxy_datasets' own. True
            in plans of earlier versions, where the device decided: such a run is read, and does not go on.
    """

    command: str
    rows: int
    catalogue: dict[str, Any]
    image_root: str
    snippet_size: int
    members: tuple[Member, ...]
    first_pass: int
    passes: int
    seed: int
    precision: str
    carried: tuple[str, ...]
    carried_digest: str
    versions: dict[str, str | None]
    interval: str = MEDIAN
    table_rows_wanted: int = dataclasses.field(default_factory=lambda: TABLE_ROWS)
    compile: bool = False
    fast_images: bool = False
    fast_views: str | bool = False

    @property
    def kind(self) -> str:
        """Kind of all members: `tree`, `classifier`, `regressor`, or `encoder` for features."""
        return "encoder" if self.command == "represent" else self.members[0].kind

    @property
    def pass_numbers(self) -> range:
        """Numbers of the passes."""
        return range(self.first_pass, self.first_pass + self.passes)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the answers, of the classes or of the value."""
        return self.members[0].outputs

    @property
    def snippets(self) -> int:
        """Number of snippets."""
        return -(-self.rows // self.snippet_size)

    @property
    def snippets_per_table(self) -> int:
        """Number of snippets in a table part."""
        return max(1, self.table_rows_wanted // self.snippet_size)

    @property
    def table_parts(self) -> int:
        """Number of table parts."""
        return -(-self.snippets // self.snippets_per_table)

    def snippet(self, number: int) -> Snippet:
        """The snippet of this number."""
        start = number * self.snippet_size
        return Snippet(number, start, min(self.rows, start + self.snippet_size))

    def table_part(self, snippet: int) -> int:
        """The table part that a snippet belongs to."""
        return snippet // self.snippets_per_table

    def table_snippets(self, part: int) -> range:
        """Snippets of a table part."""
        first = part * self.snippets_per_table
        return range(first, min(self.snippets, first + self.snippets_per_table))

    def table_rows(self, part: int) -> range:
        """Catalogue rows of a table part."""
        size = self.snippets_per_table * self.snippet_size
        return range(part * size, min(self.rows, (part + 1) * size))

    def settings(self) -> dict[str, Any]:
        """Everything that can move a number, by the name that an error line gives it."""
        return {
            "command": self.command,
            "catalogue": self.catalogue["sha256"],
            "limit": self.catalogue["limit"],
            "snippet_size": self.snippet_size,
            "first_pass": self.first_pass,
            "passes": self.passes,
            "seed": self.seed,
            "precision": self.precision,
            "compile": self.compile,
            "fast_images": self.fast_images,
            "fast_views": self.fast_views,
            # Representations are stored with their carried columns: there is no later table to put them in.
            "carry": list(self.carried) if self.command == "represent" else [],
            "carried values": self.carried_digest if self.command == "represent" else "",
            "members": {member.name: member.identity() for member in self.members},
            "order": [member.name for member in self.members],
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the settings: parts of another fingerprint are not parts of this run."""
        # What is off moves no number: plans from before there was such a setting keep their fingerprint.
        settings = {name: value for name, value in self.settings().items() if value is not False}
        canonical = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @functools.cached_property
    def tables_fingerprint(self) -> str:
        """SHA-256 of what the tables depend on: tables of another fingerprint are built anew."""
        carried = [list(self.carried), self.carried_digest]
        canonical = json.dumps(
            {"samples": self.fingerprint, "carried": carried, "interval": self.interval}, sort_keys=True
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def rows_folder(self, output: str) -> str:
        """Where the rows of this plan are."""
        return self._folder_of(output, "rows", self.catalogue["sha256"])

    def carried_folder(self, output: str) -> str:
        """Where the carried columns of this plan are."""
        return self._folder_of(output, "carried", self.carried_digest)

    def _folder_of(self, output: str, kind: str, digest: str) -> str:
        """A folder named by its content and by how that is cut."""
        content = f"{digest} {self.snippet_size} {self.table_rows_wanted}"
        return os.path.join(output, PLAN, f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:12]}")

    def read_rows(self, output: str, snippet: Snippet) -> tuple[list[str], list[str | None]]:
        """Ids and image locations of a snippet's galaxies, in order."""
        table = _read_group(self.rows_folder(output), self, snippet.number)
        return table.column(ID).to_pylist(), table.column(LOCATION).to_pylist()

    def read_ids(self, output: str, snippet: Snippet) -> pa.Array:
        """Ids of a snippet's galaxies, in order."""
        return _read_group(self.rows_folder(output), self, snippet.number).column(ID).combine_chunks()

    def read_carried(self, output: str, snippet: int) -> pa.Table:
        """The carried columns of a snippet's galaxies, in order."""
        return _read_group(self.carried_folder(output), self, snippet)

    def read_table_rows(self, output: str, part: int) -> pa.Table:
        """`id_str`, `file_loc` and the carried columns of a table part's galaxies, in order."""
        with _damaged(rows_file(self.rows_folder(output), part)) as path:
            rows = pq.read_table(for_arrow(path))
        if self.carried:
            with _damaged(rows_file(self.carried_folder(output), part)) as path:
                carried = pq.read_table(for_arrow(path))
            for name in self.carried:
                rows = rows.append_column(carried.schema.field(name), carried.column(name))
        return rows

    def carried_schema(self, output: str) -> pa.Schema:
        """Arrow fields of the carried columns."""
        if not self.carried:
            return pa.schema([])
        with _damaged(rows_file(self.carried_folder(output), 0)) as path:
            return pq.read_schema(for_arrow(path))


def _read_group(folder: str, plan: Plan, snippet: int) -> pa.Table:
    part, group = divmod(snippet, plan.snippets_per_table)
    with _damaged(rows_file(folder, part)) as path:
        source = io.BytesIO(_object(path)) if is_object(path) else path
        with pq.ParquetFile(source) as file:
            return file.read_row_group(group)


@functools.lru_cache(maxsize=8)
def _object(path: str) -> bytes:
    """A file of rows: named by its content, so that it cannot change."""
    return read_bytes(path)


@contextlib.contextmanager
def _damaged(path: str) -> Iterator[str]:
    try:
        yield path
    except (OSError, pa.ArrowException) as error:
        if is_out_of_reach(error):
            raise UserError(f"cannot read the plan's {path}: {one_line(error, 200)}") from None
        raise UserError(
            f"the plan's {path} is damaged ({one_line(error, 200)}): restore it, or use another --output"
        ) from None


def read(output: str) -> Plan | None:
    """The plan of an output, or None if it has none.

    Raises:
        UserError: it is of another version of this program, or damaged.
    """
    path = _path(output)
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read the plan {path}: {error}") from None
    return _parse(data, path)


def _parse(data: bytes, path: str) -> Plan:
    try:
        content = json.loads(data)
        if content.pop("format") != FORMAT:
            raise UserError(
                f"{path} was made by another version of this program: use that, or another --output"
            )
        members = content.pop("members")
        for cls, found in ((Plan, content), *((Member, member) for member in members)):
            if unknown := set(found) - {field.name for field in dataclasses.fields(cls)}:
                raise UserError(
                    f"{path} was made by a newer version of this program (it has {unknown.pop()!r}): "
                    "use that version, or another --output"
                )
        carried = tuple(content["carried"])
        return Plan(**{**content, "members": tuple(map(from_json, members)), "carried": carried})
    except ValueError as error:
        raise UserError(f"cannot read the plan {path}: {error}") from None
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"the plan {path} is damaged: restore it, or use another --output") from None


def write(plan: Plan, output: str, batches: Iterator[pa.RecordBatch], staged: dict[str, str]) -> None:
    """Publish a plan: whole, or not at all. If another job publishes one first, that one stays, and alone.

    Args:
        plan: the plan.
        output: folder of the output; made if absent.
        batches: all rows of the catalogue, with the carried columns.
        staged: path below the output -> the file of which a copy is to lie there.

    Raises:
        StorageFull: the disk or the quota is full.
        UserError: the output cannot be written.
    """
    files = [os.path.join(output, path) for path in staged]
    folders = [plan.rows_folder(output), *([plan.carried_folder(output)] if plan.carried else [])]
    new = [path for path in files if not exists(path)], [path for path in folders if not is_folder(path)]
    writers = [_row_writer(plan, plan.rows_folder(output), (ID, LOCATION))]
    if plan.carried:
        writers.append(_row_writer(plan, plan.carried_folder(output), plan.carried))
    _write_rows(writers, batches)
    for path, source in staged.items():
        data = read_file(source)
        if not os.path.basename(path).startswith(sha256(data)[:16]):
            raise UserError(f"{source} has changed while the run was planned: run the same command again")
        publish(os.path.join(output, path), data, replace=True)
    # Parts get their names in the same way: where that cannot be done, it is found out now.
    if not write_json(_path(output), _content(plan), replace=False):
        _take_back(output, *new)


def _take_back(output: str, new_files: list[str], new_folders: list[str]) -> None:
    """Remove what was written for a plan that came second, but for what the first has too."""
    there = read(output)
    if there is None:
        return
    needed = {there.rows_folder(output), there.carried_folder(output)}
    needed |= {os.path.join(output, member.path) for member in there.members}
    remove(*(path for path in new_files if path not in needed))
    for folder in new_folders:
        if folder not in needed:
            remove_folder(folder)


def _row_writer(plan: Plan, folder: str, columns: tuple[str, ...]) -> RowWriter:
    sizes = {"snippet_size": plan.snippet_size, "snippets_per_table": plan.snippets_per_table}
    return RowWriter(folder, columns, **sizes)


def _write_rows(writers: list[RowWriter], batches: Iterator[pa.RecordBatch]) -> None:
    for batch in batches:
        for writer in writers:
            writer.add(batch)
    for writer in writers:
        writer.close()


def update(plan: Plan, output: str, batches: Iterator[pa.RecordBatch] | None) -> None:
    """Put a plan with the same fingerprint in the place of the old one; `batches` if other columns are carried.

    Raises:
        UserError: another job has put a plan of its own there.
    """
    try:
        before = read_version(_path(output))
    except OSError as error:
        raise UserError(f"cannot read the plan {_path(output)}: {error.strerror}") from None
    there = _parse(before.data, _path(output))
    if there.fingerprint != plan.fingerprint:
        raise UserError(
            f"another job has just planned something else in {output}: look what it does, then run again"
        )
    if _content(there) == json.loads(json.dumps(_content(plan))):
        return
    last = rows_file(plan.carried_folder(output), plan.table_parts - 1)
    if batches is not None and plan.carried and not exists(last):
        _write_rows([_row_writer(plan, plan.carried_folder(output), plan.carried)], batches)
    if not compare_and_swap(_path(output), before, to_json_bytes(_content(plan))):
        raise UserError(f"another job has just changed the plan of {output}: run the same command again")


def _path(output: str) -> str:
    return os.path.join(output, PLAN_FILE)


def _content(plan: Plan) -> dict[str, Any]:
    members = [to_json(member) for member in plan.members]
    fields = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
    return {"format": FORMAT, **fields, "carried": list(plan.carried), "members": members}


def differences(old: Plan, new: Plan) -> list[str]:
    """The settings in which two plans differ, as phrases for an error line."""
    before, after = old.settings(), new.settings()
    found = []
    for name in before:
        if before[name] == after[name] or name in ("members", "order"):
            continue
        if name == "catalogue":
            if before["limit"] == after["limit"]:
                found.append("catalogue (its ids, image paths or rows)")
        else:
            found.append(name if name == "carried values" else _change(name, before[name], after[name]))
    ours, theirs = before["members"], after["members"]
    for name in sorted({*ours, *theirs}):
        if name not in theirs or name not in ours:
            found.append(f"members ({name} is {'there' if name in ours else 'now'} only)")
        else:
            changed = [key for key in ours[name] if ours[name][key] != theirs[name].get(key)]
            found += [f"{key} of member {name}" for key in changed]
    if set(ours) == set(theirs) and before["order"] != after["order"]:
        found.append("the order of the members")
    return found


def _change(name: str, before: Any, after: Any) -> str:
    return f"{name} ({_short(before)} there, {_short(after)} now)"


def _short(value: Any) -> str:
    return "none" if value is None or value == [] else str(value)
