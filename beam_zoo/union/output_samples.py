"""A finished output as a union of the runs that its samples are stored in: for export, and for the audit."""

import dataclasses
import os
import re
from collections.abc import Iterable
from typing import Any

from beam_zoo.errors import UserError
from beam_zoo.samples import parts
from beam_zoo.samples.ensemble import REFUSE
from beam_zoo.samples.records import PartRef
from beam_zoo.storage import layout
from beam_zoo.storage.files import is_folder, read_json
from beam_zoo.storage.layout import MANIFEST
from beam_zoo.union.reading import TablePartInput, reorder_samples, table_part
from beam_zoo.union.runs import Runs, all_members, carried_fields, open_runs
from beam_zoo.union.union import Union, unite

_SNIPPET = re.compile(r"^part-(\d+)")


@dataclasses.dataclass(frozen=True)
class OutputSamples:
    """An output whose tables can be computed again, table part by table part.

    Attributes:
        union: its runs (one for an output of `predict`), with the table parts that the output has.
        stored: the parts of each run: those that the manifest of an aggregate names, or all of an output of `predict`.
        moved: the files that were read already, of runs that an aggregate has in another order.
    """

    union: Union
    stored: list[parts.Stored]
    moved: list[dict[str, Any]]

    def table_part(self, number: int) -> TablePartInput:
        """What a table part must be computed from; see `pieces.table_part`."""
        return table_part(self.union, self.stored, number)


def open_samples(output: str, work: str) -> OutputSamples:
    """Find the stored samples of an output of `predict` or `aggregate`.

    Args:
        output: folder of the output; an aggregate's must be complete.
        work: an empty folder. Runs that an aggregate has in another order are put into its order there, so it needs
            room for their samples, and is needed as long as the union is read.

    Raises:
        UserError: it is no such output, or its runs are not what they were.
    """
    if is_folder(os.path.join(output, layout.PLAN)):
        return _of_run(output, work)
    manifest = _manifest(output)
    runs = open_runs([source["path"] for source in manifest["sources"]])
    for (plan, folder), source in zip(runs, manifest["sources"], strict=True):
        if plan.fingerprint != source["fingerprint"]:
            raise UserError(f"{folder} holds another run than when {output} was made of it")
    stored = [_named(source["parts"]) for source in manifest["sources"]]
    union = _unite(
        runs,
        manifest["carried"],
        manifest["incomplete"],
        manifest["interval"],
        manifest["rows_per_table_part"],
        work,
    )
    moved = []
    for number, source in enumerate(union.sources):
        if source.moved is not None:
            moved += reorder_samples(union, number, stored[number])
    return OutputSamples(union, stored, moved)


def _of_run(output: str, work: str) -> OutputSamples:
    (plan, folder), *_ = runs = open_runs([output])
    union = _unite(runs, plan.carried, REFUSE, plan.interval, len(plan.table_rows(0)), work)
    return OutputSamples(union, [parts.stored_parts(plan, folder)], [])


def _unite(
    runs: Runs, carried: Iterable[str], incomplete: str, interval: str, part_rows: int, work: str
) -> Union:
    fields = carried_fields(runs, list(carried))
    return unite(runs, *all_members(runs), fields, incomplete, interval, part_rows, work)


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


def _named(files: list[dict[str, Any]]) -> parts.Stored:
    """The parts that a manifest names, as `parts.stored_parts` lists them."""
    stored: parts.Stored = {}
    for file in files:
        name = os.path.basename(file["name"])
        snippet = int(_SNIPPET.findall(name)[0])
        stored.setdefault(snippet, []).append(PartRef(snippet, name))
    return stored
