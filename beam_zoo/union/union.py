"""A union of runs: its members, passes and rows.

A `Union` is for the tables of an aggregate what a `Plan` is for those of a run. `unite` makes it, and writes
the files that map rows of the union to rows of each run into a working folder. Workers read that folder and
do not write there.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beam_zoo.catalogue.read import ID, LOCATION
from beam_zoo.members.member import Member
from beam_zoo.plan.plan import Plan
from beam_zoo.samples.ensemble import Ensemble
from beam_zoo.union.join import RowMapping, join_by_id
from beam_zoo.union.runs import OpenedRun, all_members, carried_fields
from beam_zoo.union.working_files import PartitionWriter, read_partition

ROWS = "rows"
"""Folder of a reordered run with its rows."""
UNION_ROW = "union_row"


@dataclasses.dataclass(frozen=True)
class Source:
    """One of the runs.

    Attributes:
        output: folder of the run's output.
        plan: its plan.
        mapping: which rows of the union its rows are.
        reordered: folder with its rows and samples in the union's order; None if its own is the same.
    """

    output: str
    plan: Plan
    mapping: RowMapping
    reordered: str | None


@dataclasses.dataclass(frozen=True)
class Union:
    """What the tables of an aggregate are computed from.

    Attributes:
        sources: the runs, in the order of the command line.
        rows: number of the union's rows.
        part_rows: rows of a table part.
        members: of all runs, each once.
        passes: for each member, the numbers of its passes in all runs.
        fields: the carried columns.
        incomplete: what is done with galaxies that lack samples: `refuse`, `drop` or `keep`.
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
        """SHA-256 of what the tables depend on, except for the parts that were read."""
        content = [
            [source.plan.fingerprint for source in self.sources],
            self.fields.names,
            self.incomplete,
            self.interval,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def ensemble(self) -> Ensemble:
        """Which samples a complete galaxy has, member by member and pass by pass, from all runs."""
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
        """`id_str`, `file_loc` and the carried columns of a table part.

        The value of a column is that of the first run that has the galaxy and the column.
        """
        rows = self.table_rows(part)
        found = [self._rows_of(source, part) for source in self.sources]
        columns = []
        for field in [pa.field(ID, pa.string()), pa.field(LOCATION, pa.string()), *self.fields]:
            index = np.full(len(rows), -1)
            chunks, total = [], 0
            for union_rows, table in found:
                if field.name not in table.column_names:
                    continue
                places = union_rows - rows.start
                missing = index[places] < 0
                index[places[missing]] = total + np.flatnonzero(missing)
                chunks += [_cast(chunk, field.type) for chunk in table.column(field.name).chunks]
                total += len(table)
            values = pa.concat_arrays(chunks) if chunks else pa.nulls(0, field.type)
            columns.append(values.take(pa.array(index, mask=index < 0)))
        return pa.table(columns, [ID, LOCATION, *self.fields.names])

    def _rows_of(self, source: Source, part: int) -> tuple[np.ndarray, pa.Table]:
        """A run's rows in a table part: their rows of the union, and ids, locations and carried columns."""
        rows, plan, nothing = self.table_rows(part), source.plan, (np.zeros(0, np.int64), pa.table({}))
        if source.reordered is not None:
            table = read_partition(os.path.join(source.reordered, ROWS), part)
            if table is None:
                return nothing
            return table.column(UNION_ROW).to_numpy(), table.drop_columns([UNION_ROW])
        own = source.mapping.own_rows(rows.start, rows.stop, plan.rows)
        if not own:
            return nothing
        size = len(plan.table_rows(0))
        first, last = own.start // size, (own.stop - 1) // size
        table = pa.concat_tables(plan.read_table_rows(source.output, n) for n in range(first, last + 1))
        return source.mapping.union_rows(own.start, own.stop), table.slice(own.start - first * size, len(own))


def _cast(chunk: pa.Array, kind: pa.DataType) -> pa.Array:
    return pa.nulls(len(chunk), kind) if pa.types.is_null(chunk.type) else chunk


def unite(
    runs: Sequence[OpenedRun],
    work: str,
    *,
    carry: Sequence[str] | None,
    incomplete: str,
    interval: str,
    part_rows: int,
) -> Union:
    """Join runs by galaxy id, and reorder the rows of those that are in another order.

    Args:
        runs: the runs.
        work: an empty folder for what is found; it is needed as long as the union is read.
        carry: names of the carried columns; None for all that any run carries.
        incomplete, interval, part_rows: as in `Union`.

    Raises:
        UserError: the runs are not compatible, or no run carries a column of `carry`.
        StorageFull: the disk or the quota is full.
    """
    members, passes = all_members(runs)
    fields = carried_fields(runs, carry)
    mappings, total = join_by_id(runs, work)
    sources = []
    for number, ((plan, output), mapping) in enumerate(zip(runs, mappings, strict=True)):
        reordered = None if mapping.is_increasing else os.path.join(work, f"reordered-{number}")
        sources.append(Source(output, plan, mapping, reordered))
    union = Union(tuple(sources), total, part_rows, members, passes, fields, incomplete, interval)
    for source in sources:
        if source.reordered is not None:
            _reorder_rows(union, source, os.path.join(source.reordered, ROWS))
    return union


def _reorder_rows(union: Union, source: Source, folder: str) -> None:
    """Write a run's rows in the union's order: a partition for each table part."""
    writer = PartitionWriter(folder)
    for part in range(source.plan.table_parts):
        rows = source.plan.table_rows(part)
        union_rows = source.mapping.union_rows(rows.start, rows.stop)
        table = source.plan.read_table_rows(source.output, part)
        writer.add(union_rows // union.part_rows, table.append_column(UNION_ROW, pa.array(union_rows)))
    writer.flush()
