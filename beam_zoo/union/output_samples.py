"""The samples of a finished output, as a union of the runs that store them."""

import dataclasses
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from beam_zoo.catalogue.read import ID
from beam_zoo.errors import UserError
from beam_zoo.images.failure import Failure
from beam_zoo.samples import parts
from beam_zoo.samples.batches import SampleBatch, SampleBatcher
from beam_zoo.samples.combine import CombineSamples
from beam_zoo.samples.ensemble import REFUSE
from beam_zoo.samples.records import PartRef
from beam_zoo.storage import layout
from beam_zoo.storage.files import is_folder, read_json
from beam_zoo.storage.layout import MANIFEST, part_number
from beam_zoo.union.reading import read, read_tasks, reorder_samples
from beam_zoo.union.runs import open_runs
from beam_zoo.union.union import Union, unite


@dataclasses.dataclass(frozen=True)
class TablePartInput:
    """What a table part is computed from.

    Attributes:
        rows: `id_str`, `file_loc` and the carried columns, in the order of the table.
        galaxies: the predicted galaxies with their samples; `Union.ensemble` says which samples those are.
        failures: (row, id, failure) of all other galaxies, in order.
        files: the stored parts that were read.
    """

    rows: pa.Table
    galaxies: list[SampleBatch]
    failures: list[tuple[int, str, Failure]]
    files: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class OutputSamples:
    """The samples of an output.

    Attributes:
        union: the runs that store them (one for an output of `predict`), with the table parts of the output.
        stored: the parts of each run: those that the manifest of an aggregate names, or all of an output of
            `predict`.
        files_read: the stored parts of reordered runs, which `open_samples` has read.
    """

    union: Union
    stored: list[parts.Stored]
    files_read: list[dict[str, Any]]

    def read_table_part(self, number: int) -> TablePartInput:
        """Read what a table part is computed from, in this process, without a pipeline.

        Raises:
            UserError: a stored part is missing or damaged, runs contradict each other, or a galaxy is
                incomplete.
        """
        union, files = self.union, []
        records_of: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for task in read_tasks(union, self.stored, union.table_rows(number)):
            found, records = read(union, task)
            files += [file for _, file in found]
            for galaxy, record in records:
                records_of[galaxy].append(record)
        combine_samples, batcher = CombineSamples(), SampleBatcher(union.ensemble)
        for galaxy, all_records in records_of.items():
            batcher.add(galaxy, combine_samples.apply(all_records))
        galaxies, failures = batcher.flush(), sorted(batcher.failures)
        rows = len(union.table_rows(number))
        if sum(len(some.rows) for some in galaxies) + len(failures) != rows:
            raise UserError(f"table part {number}: the runs hold {len(records_of)} galaxies of {rows}")
        return TablePartInput(union.read_table_rows("", number), galaxies, failures, files)


def open_samples(output: str, work: str) -> OutputSamples:
    """Find the samples of an output of `predict` or `aggregate`.

    Args:
        output: folder of the output; an aggregate must be complete.
        work: an empty folder. The samples of runs that are in another order than the aggregate are written
            there in its order, so it needs room for them. It is needed as long as the samples are read.

    Raises:
        UserError: the folder is not such an output, or its runs have changed since.
        StorageFull: the disk or the quota of the working folder is full.
    """
    if is_folder(os.path.join(output, layout.PLAN)):
        (run,) = runs = open_runs([output])
        plan, stored = run.plan, [parts.stored_parts(run.plan, run.output)]
        carry, part_rows = plan.carried, len(plan.table_rows(0))
        union = unite(runs, work, carry=carry, incomplete=REFUSE, interval=plan.interval, part_rows=part_rows)
        return OutputSamples(union, stored, [])
    manifest = _manifest(output)
    runs = open_runs([source["path"] for source in manifest["sources"]])
    for (plan, folder), source in zip(runs, manifest["sources"], strict=True):
        if plan.fingerprint != source["fingerprint"]:
            raise UserError(f"{folder} holds another run than when {output} was made of it")
    stored = [_listed_parts(output, source["parts"]) for source in manifest["sources"]]
    union = unite(
        runs,
        work,
        carry=manifest["carried"],
        incomplete=manifest["incomplete"],
        interval=manifest["interval"],
        part_rows=manifest["rows_per_table_part"],
    )
    return OutputSamples(union, stored, reorder_samples(union, stored))


def read_samples(output: str) -> pa.Table:
    """The samples of an aggregate's tables, each once: one row per galaxy, member and pass.

    Raises:
        UserError: a source is not there any more, or has changed.
    """
    with tempfile.TemporaryDirectory(prefix="beam_zoo-") as work:
        return pa.concat_tables([*_sample_tables(open_samples(output, work))])


def _sample_tables(opened: OutputSamples) -> Iterator[pa.Table]:
    """One table per table part; a galaxy that lacks samples has rows for those that it has."""
    union = opened.union
    numbers = [pa.field(name, pa.float32()) for name in union.outputs]
    schema = pa.schema([(ID, pa.string()), ("member", pa.string()), ("pass", pa.int32()), *numbers])
    for number in range(union.table_parts):
        rows, tables = [np.zeros(0, np.int64)], [schema.empty_table()]
        for some in opened.read_table_part(number).galaxies:
            count = len(some.held)
            members, passes = zip(*(union.ensemble.samples[place] for place in some.held), strict=True)
            values = some.samples.reshape(len(some.ids) * count, len(union.outputs))
            columns = [np.repeat(np.array(some.ids, object), count), members * len(some.ids)]
            columns += [passes * len(some.ids), *np.ascontiguousarray(values.T)]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            rows.append(np.repeat(some.rows, count))
            tables.append(pa.table(arrays, schema=schema))
        order = np.argsort(np.concatenate(rows), kind="stable")
        yield pa.concat_tables(tables).take(pa.array(order))


def _manifest(output: str) -> dict[str, Any]:
    path = os.path.join(output, MANIFEST)
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{output} is not a complete output of predict or aggregate: it has no {MANIFEST}"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if manifest.get("command") != "aggregate":
        raise UserError(f"{output} is not an output of predict or aggregate")
    return manifest


def _listed_parts(output: str, files: list[dict[str, Any]]) -> parts.Stored:
    """The parts that the manifest of an aggregate lists, in the form of `parts.stored_parts`."""
    stored: parts.Stored = {}
    for file in files:
        name = os.path.basename(file["name"])
        number = part_number(name)
        if number is None:
            raise UserError(f"{MANIFEST} of {output} lists {file['name']}, which is not the name of a part")
        stored.setdefault(number[0], []).append(PartRef(number[0], name))
    return stored
