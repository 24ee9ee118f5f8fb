"""Several runs as one: their members, passes and rows united, and read together whatever their order.

A `Union` is to the tables of an aggregate what a `Plan` is to those of a run. It is made by `unite`, which puts what it
needs to find a galaxy in every run into a working folder; workers only read there.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np
import pyarrow as pa

from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.members.member import Member
from beam_zoo.plan.plan import Plan
from beam_zoo.samples.ensemble import Ensemble
from beam_zoo.union import join
from beam_zoo.union.join import RowMapping
from beam_zoo.union.working_files import PartitionWriter, read_partition


def manifest_entry(plan: Plan) -> dict[str, Any]:
    """What an aggregate's manifest says of a run beside its parts, and the audit holds against its plan."""
    return {
        "rows": plan.rows,
        "members": [member.name for member in plan.members],
        "passes": list(plan.pass_numbers),
        "seed": plan.seed,
        "precision": plan.precision,
        **{
            name: getattr(plan, name)
            for name in ("compile", "fast_images", "fast_views")
            if getattr(plan, name)
        },
        "versions": plan.versions,
    }


@dataclasses.dataclass(frozen=True)
class Source:
    """One of the runs.

    Attributes:
        output: folder of the run's output.
        plan: its plan.
        places: where its rows stand in the union.
        moved: folder with its rows and samples in the order of the union, where they are in another.
    """

    output: str
    plan: Plan
    places: RowMapping
    moved: str | None


@dataclasses.dataclass(frozen=True)
class Union:
    """What an aggregate's tables are of.

    Attributes:
        sources: the runs, in the order of the command line.
        rows: number of the union's rows.
        part_rows: rows of a table part.
        members: of all runs, each once.
        passes: per member, the numbers of its passes in all runs.
        fields: the carried columns.
        incomplete: what becomes of galaxies that lack samples: `refuse`, `drop` or `keep`.
        interval: which 90% interval the tables have.
    """

    sources: tuple[Source, ...]
    rows: int
    part_rows: int
    members: tuple[Member, ...]
    passes: tuple[tuple[int, ...], ...]
    fields: pa.Schema
    incomplete: str
    interval: str
    command: str = "aggregate"

    @property
    def kind(self) -> str:
        """Kind of all members."""
        return self.members[0].kind

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the answers, of the classes or of the value."""
        return self.members[0].outputs

    @property
    def table_parts(self) -> int:
        """Number of table parts."""
        return -(-self.rows // self.part_rows)

    def table_rows(self, part: int) -> range:
        """Rows of a table part."""
        return range(part * self.part_rows, min(self.rows, (part + 1) * self.part_rows))

    @property
    def tables_fingerprint(self) -> str:
        """SHA-256 of what the tables depend on, beside the very parts that were read."""
        content = [
            [source.plan.fingerprint for source in self.sources],
            self.fields.names,
            self.incomplete,
            self.interval,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def ensemble(self) -> Ensemble:
        """Which samples a complete galaxy has: member by member and pass by pass, whatever run they come from."""
        samples = tuple((m.name, n) for m, ns in zip(self.members, self.passes, strict=True) for n in ns)
        where = {sample: index for index, sample in enumerate(samples)}
        by_source = tuple(
            tuple(
                where[member.name, number]
                for member in source.plan.members
                for number in source.plan.pass_numbers
            )
            for source in self.sources
        )
        names = tuple(source.output for source in self.sources)
        return Ensemble(samples, by_source, len(self.outputs), names, self.incomplete)

    def read_table_rows(self, output: str, part: int) -> pa.Table:
        """`id_str`, `file_loc` and the carried columns of a table part: of each the first run's that has it."""
        rows = self.table_rows(part)
        places, tables = zip(*(self._rows_of(source, part) for source in self.sources), strict=True)
        columns = []
        for field in [pa.field(ID, pa.string()), pa.field(LOCATION, pa.string()), *self.fields]:
            index = np.full(len(rows), -1)
            chunks, total = [], 0
            for positions_, table in zip(places, tables, strict=True):
                if field.name not in table.column_names:
                    continue
                free = index[positions_ - rows.start] < 0
                index[(positions_ - rows.start)[free]] = total + np.flatnonzero(free)
                chunks += [_cast(chunk, field.type) for chunk in table.column(field.name).chunks]
                total += len(table)
            values = pa.concat_arrays(chunks) if chunks else pa.nulls(0, field.type)
            columns.append(values.take(pa.array(index, mask=index < 0)))
        return pa.table(columns, [ID, LOCATION, *self.fields.names])

    def _rows_of(self, source: Source, part: int) -> tuple[np.ndarray, pa.Table]:
        """A run's rows that stand in a table part: their positions, and ids, locations and carried columns."""
        rows, plan = self.table_rows(part), source.plan
        if source.moved is not None:
            table = read_partition(os.path.join(source.moved, "rows"), part)
            if table is None:
                return np.zeros(0, np.int64), pa.table({})
            return table.column("position").to_numpy(), table.drop_columns(["position"])
        own = source.places.rows_within(rows.start, rows.stop, plan.rows)
        if not own:
            return np.zeros(0, np.int64), pa.table({})
        size = len(plan.table_rows(0))
        first, last = own.start // size, (own.stop - 1) // size
        table = pa.concat_tables(plan.read_table_rows(source.output, n) for n in range(first, last + 1))
        return source.places.of(own.start, own.stop), table.slice(own.start - first * size, len(own))


def _cast(chunk: pa.Array, kind: pa.DataType) -> pa.Array:
    return pa.nulls(len(chunk), kind) if pa.types.is_null(chunk.type) else chunk


def unite(
    runs: list[tuple[Plan, str]],
    members: tuple[Member, ...],
    passes: tuple[tuple[int, ...], ...],
    fields: pa.Schema,
    incomplete: str,
    interval: str,
    part_rows: int,
    work: str,
) -> Union:
    """Find every row's place, and move the rows of runs that are in another order.

    Args:
        runs: plan and output folder of each; they go together.
        members, passes, fields, incomplete, interval, part_rows: as in `Union`.
        work: an empty folder for what is found, which is needed as long as the union is read.
    """
    places, total = join.unite(runs, work)
    sources = []
    for number, ((plan, output), place) in enumerate(zip(runs, places, strict=True)):
        moved = None if place.in_order else os.path.join(work, f"moved-{number}")
        sources.append(Source(output, plan, place, moved))
    union = Union(tuple(sources), total, part_rows, members, passes, fields, incomplete, interval)
    for source in sources:
        if source.moved is not None:
            _move_rows(union, source)
    return union


def _move_rows(union: Union, source: Source) -> None:
    assert source.moved is not None
    buckets = PartitionWriter(os.path.join(source.moved, "rows"))
    for part in range(source.plan.table_parts):
        rows = source.plan.table_rows(part)
        position = source.places.of(rows.start, rows.stop)
        table = source.plan.read_table_rows(source.output, part)
        buckets.add(position // union.part_rows, table.append_column("position", pa.array(position)))
    buckets.close()
