"""The plan of a run: made of the options, the members and the catalogue's rows, and published."""

import dataclasses
from collections.abc import Iterator

import pyarrow as pa

from beam_zoo.catalogue.check import Checker
from beam_zoo.catalogue.read import Catalogue, limited
from beam_zoo.errors import UserError
from beam_zoo.members.member import Member
from beam_zoo.plan import plan as plans
from beam_zoo.plan import plan_file
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.planned_catalogue import PlannedCatalogue, RowChecks
from beam_zoo.plan.rows import CarriedDigest
from beam_zoo.runtime.versions import versions
from beam_zoo.storage import output as outputs
from beam_zoo.storage.files import storage
from pipelines.options import Inputs, Options
from pipelines.probe import probe_new, probe_rest


@dataclasses.dataclass(frozen=True)
class PlannedRows:
    """The rows of a catalogue, as a plan has them.

    Attributes:
        catalogue: where they are from.
        count: how many there are.
        carried: names of the carried columns.
        carried_digest: SHA-256 of their content, or an empty string.
    """

    catalogue: PlannedCatalogue
    count: int
    carried: tuple[str, ...]
    carried_digest: str


def planned_rows(
    inputs: Inputs,
    snippet_size: int,
    old: Plan | None,
    catalogue: Catalogue | None,
    root: str,
    *,
    remote: bool,
) -> PlannedRows:
    """The catalogue's rows, read only if its files, or the carried columns, are others than planned before.

    Args:
        inputs: what is to be predicted.
        snippet_size: rows of a snippet.
        old: the output's plan, if it has one.
        catalogue: the catalogue, or None where the old plan stands for it.
        root: where relative image paths start.
        remote: whether workers see no local files.

    Raises:
        UserError: rows are missing, duplicate, or have images where they must not be.
    """
    if catalogue is None:
        assert old is not None
        if inputs.carry != old.carried:
            raise UserError(f"there is no catalogue {inputs.catalogue} any more to carry other columns from")
        before = dataclasses.replace(old.catalogue, limit=inputs.limit)
        return PlannedRows(before, old.rows, old.carried, old.carried_digest)
    checked = RowChecks(
        limit=inputs.limit,
        image_root_given=bool(inputs.image_root),
        allow_outside=inputs.allow_outside,
        image_root=root,
        snippet_size=snippet_size,
        remote=remote,
    )
    location, files = str(inputs.catalogue), catalogue.stamps()
    if old is not None and old.carried == inputs.carry:
        before = old.catalogue
        if (before.files, before.checked) == (files, checked):
            before = dataclasses.replace(before, location=location)
            return PlannedRows(before, old.rows, old.carried, old.carried_digest)
    checker = Checker(
        root, root_given=bool(inputs.image_root), allow_outside=inputs.allow_outside, remote=remote
    )
    carried = CarriedDigest(inputs.carry, snippet_size)
    for batch in limited(catalogue.batches(inputs.carry), inputs.limit):
        checker.add(batch)
        carried.add(batch)
    probes = old.catalogue.probes if old else ()
    digest = checker.finish(catalogue, inputs.limit)
    content = PlannedCatalogue(location, files, checked, inputs.limit, digest, probes)
    return PlannedRows(content, checker.rows, inputs.carry, carried.finish())


def make_plan(
    command: str,
    options: Options,
    old: Plan | None,
    rows: PlannedRows,
    root: str,
    members: tuple[Member, ...],
) -> Plan:
    """The plan that these options ask for.

    Args:
        command: `predict` or `represent`.
        options: of the command.
        old: the output's plan, if it has one: what is only recorded stays as it was.
        rows: of the catalogue.
        root: where relative image paths start.
        members: the ensemble.
    """
    return Plan(
        command=command,
        rows=rows.count,
        catalogue=rows.catalogue,
        image_root=root,
        snippet_size=options.work.snippet_size,
        members=members,
        **(
            dataclasses.asdict(options.sampling)
            | {"fast_views": plans.BATCHED if options.sampling.fast_views else False}
        ),
        carried=rows.carried,
        carried_digest=rows.carried_digest,
        versions=versions() if old is None else old.versions,
        interval=options.tables.interval,
        table_rows_wanted=plans.TABLE_ROWS if old is None else old.table_rows_wanted,
    )


def with_probed_images(
    plan: Plan,
    old: Plan | None,
    catalogue: Catalogue | None,
    output: str,
    missing: list[int],
    max_failure_fraction: float,
) -> Plan:
    """The plan with the probes: a few images that are opened, and compared with those of an earlier start.

    Args:
        plan: the plan.
        old: the output's plan, if it has one.
        catalogue: of a new run.
        output: folder of the output.
        missing: numbers of the snippets that are to be predicted.
        max_failure_fraction: of the rows.

    Raises:
        UserError: none can be opened, or one is another image by now.
    """
    if old is None:
        assert catalogue is not None
        limit = plan.catalogue.limit
        probes = probe_new(catalogue, plan.rows, limit, plan.image_root, max_failure_fraction)
        return dataclasses.replace(plan, catalogue=dataclasses.replace(plan.catalogue, probes=probes))
    if missing:
        probe_rest(plan, output, plan.image_root, missing, max_failure_fraction)
    return plan


def publish(
    plan: Plan,
    old: Plan | None,
    output: str,
    catalogue: Catalogue | None,
    staged: dict[str, str],
    *,
    overwrite: bool,
) -> None:
    """Write a plan, or go on with the one that is there.

    Args:
        plan: the plan.
        old: the output's plan when this one was made, if it had one.
        output: folder of the output.
        catalogue: where the rows are, or None where the stored plan stands for it.
        staged: path below the output -> the checkpoint of which a copy is to lie there.
        overwrite: remove what an earlier run wrote.

    Raises:
        UserError: the output cannot be written, or another job has planned something else there.
        StorageFull: the disk or the quota is full.
    """

    def rows() -> Iterator[pa.RecordBatch]:  # the catalogue once more, now with the carried columns
        assert catalogue is not None
        return limited(catalogue.batches(plan.carried), plan.catalogue.limit)

    with storage(output):
        if overwrite:
            outputs.clear(output)
        if old is not None:
            plan_file.update(old, plan, output, rows() if catalogue is not None else None)
            return
        plan_file.write(plan, output, rows(), staged)
        there = plan_file.read(output)
        if there is None or there.fingerprint != plan.fingerprint:
            raise UserError(
                f"another job has just planned a run with other settings in {output}: use another --output"
            )
        if there.tables_fingerprint != plan.tables_fingerprint:
            raise UserError(
                f"another job has just begun to carry other columns, or other intervals, into {output}: "
                "use the same"
            )
