"""From options to a run: every check that needs no worker, then the plan."""

import dataclasses
import os
import sys
from typing import Any

from beam_zoo.catalogue.check import Checker
from beam_zoo.catalogue.read import ID, LOCATION, Catalogue, find, limited
from beam_zoo.errors import UserError, near_path
from beam_zoo.images.fast_views import FastView
from beam_zoo.members import member as member_files
from beam_zoo.members.resolve import resolve
from beam_zoo.plan import plan as plans
from beam_zoo.plan.plan import MIXTURE, Plan
from beam_zoo.plan.rows import CarriedDigest
from beam_zoo.plan.run import Run
from beam_zoo.runtime.device import one_thread, usable_device
from beam_zoo.runtime.malloc import keep_freed_memory
from beam_zoo.runtime.versions import changes, source, versions
from beam_zoo.samples import parts
from beam_zoo.storage import output as outputs
from beam_zoo.storage.files import absolute, exists, is_remote, storage
from beam_zoo.tables.tables import column_names
from pipelines.options import Options, models_of
from pipelines.probe import probe_new, probe_rest
from runners import beam_options
from runners.dataflow import checks, image, preset


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that passed all checks.

    Attributes:
        run: the run.
        plan_is_new: whether the output had no plan yet.
        catalogue: where the rows are, or None where the stored plan stands for it.
        staged: what is to be copied below the output's plan.
        snippets: numbers of the snippets to predict.
        stored: the parts that are there already.
        hints: Beam's resource hints of the steps that need a GPU, where a runner gives it to those only.
    """

    run: Run
    plan_is_new: bool
    catalogue: Catalogue | None
    staged: dict[str, str]
    snippets: range
    stored: parts.Stored
    hints: dict[str, str] = dataclasses.field(default_factory=dict)


def prepare(command: str, options: Options) -> Prepared:
    """All checks, in an order that finds cheap mistakes first. Nothing is written.

    Raises:
        UserError: the first thing that is wrong.
    """
    for name in ("catalogue", "models", "output"):
        if not options.values[name]:
            raise UserError(f"--{name} is missing (--help lists the options)")
    output = absolute(options.output)
    one_thread()
    device, hints = _device(options)
    if device == "cpu":
        keep_freed_memory()
    outputs.check(output, overwrite=options.overwrite)
    if _on_dataflow(options):
        image.check(options.beam, gpu=device == "cuda")
    if options.snippets and options.overwrite:
        raise UserError("--overwrite and --snippets do not go together: it would remove other tasks' samples")
    old = None if options.overwrite else plans.read(output)
    specs = [member_files.read_member(path) for path in models_of(options.models)]
    _check_names(specs)
    previous = {member.name: member for member in old.members} if old else {}
    represent = command == "represent"
    resolved = [resolve(spec, previous.get(spec.name), output, represent=represent) for spec in specs]
    members = tuple(member for member, _ in resolved)
    _check_agreement(members, represent)
    if options.fast_views:
        _check_fast_views(members)
    if options.interval == MIXTURE and (represent or members[0].kind != "tree"):
        raise UserError("--interval mixture is for vote fractions: leave it out")
    catalogue = _find_catalogue(options, old)
    if options.overwrite:
        _refuse_own_inputs(output, catalogue, specs)
    root = _image_root(options, catalogue, old)
    if catalogue is not None:
        _check_columns(catalogue, tuple(options.carry), command, members)
    plan = _plan(command, options, old, catalogue, root, members)
    if old is not None and (found := plans.differences(old, plan)):
        raise UserError(
            f"{output} holds a run with other settings: {'; '.join(found)}. Use another --output, or --overwrite"
        )
    if old is not None and (changed := changes(old.versions, versions())):
        print(f"note: the run began with other versions: {changed}", file=sys.stderr)
    snippets = _snippets(options.snippets, plan.snippets)
    stored: parts.Stored = {} if old is None else parts.stored_parts(plan, output)
    missing = [number for number in snippets if number not in stored]
    if old is None:
        assert catalogue is not None
        probes = probe_new(catalogue, plan.rows, options.limit, root, options.max_failure_fraction)
        plan = dataclasses.replace(plan, catalogue={**plan.catalogue, "probes": probes})
    elif missing:
        probe_rest(plan, output, root, missing, options.max_failure_fraction)
    staged = {m.path: path for m, path in resolved if m.path != path and not path.startswith(output + os.sep)}
    run = Run(plan, output, root, options.batch_size, device)
    if _on_dataflow(options):
        run = dataclasses.replace(run, source=source())
    return Prepared(run, old is None, catalogue, staged, snippets, stored, hints)


def _on_dataflow(options: Options) -> bool:
    return beam_options.runner_name(options.beam) == beam_options.DATAFLOW


def _device(options: Options) -> tuple[str, dict[str, str]]:
    """The device of the members, and the hints of the steps that use it."""
    if _on_dataflow(options):
        locations = {name: options.values[name] for name in ("output", "catalogue", "image_root")}
        checks.check(options.beam, locations, options.device, options.precision)
        device = preset.device(options.beam)
        return (device if device == "cuda" else usable_device(device, options.precision)), preset.chain_hint(
            options.beam
        )
    # On a cluster only a worker can know its device, and says so before its first image.
    here = beam_options.runner_name(options.beam) == beam_options.DIRECT
    return (usable_device(options.device, options.precision) if here else options.device), {}


def _check_names(specs: list[member_files.MemberSpec]) -> None:
    names = [spec.name for spec in specs]
    for spec in specs:
        if names.count(spec.name) > 1:
            raise UserError(f"two members are named {spec.name!r}: names tell their samples apart")


def _check_agreement(members: tuple[member_files.Member, ...], represent: bool) -> None:
    if represent:
        return
    first, *others = members
    for other in others:
        both = f"members {first.name} and {other.name}"
        if first.kind != other.kind:
            raise UserError(f"{both} do not go together: a {first.kind} and a {other.kind}")
        if first.outputs != other.outputs:
            what = {"tree": "questions and answers", "classifier": "class_names"}.get(
                first.kind, "value_name"
            )
            raise UserError(f"{both} have different {what}")
        if first.schema != other.schema:
            raise UserError(f"{both} have schemas with different dependencies")


def _check_fast_views(members: tuple[member_files.Member, ...]) -> None:
    for member in members:
        try:
            FastView(member.view)
        except UserError as error:
            raise UserError(f"member {member.name}: {error}") from None


def _find_catalogue(options: Options, old: Plan | None) -> Catalogue | None:
    """The catalogue, or None where it is gone and the plan made from it is still there."""
    location = options.catalogue
    before = old.catalogue if old is not None and old.catalogue["location"] == location else None
    if before and not os.path.exists(location) and not any(exists(file) for file, _, _ in before["files"]):
        print(f"{location} is not there any more: going on with the plan made from it", file=sys.stderr)
        return None
    return find(os.path.expanduser(options.catalogue))


def _image_root(options: Options, catalogue: Catalogue | None, old: Plan | None) -> str:
    if options.image_root:
        root = absolute(options.image_root)
        if not is_remote(root) and not os.path.isdir(root):
            what = "is not a folder" if os.path.exists(root) else f"does not exist{near_path(root)}"
            raise UserError(f"--image_root {root} {what}")
        return root
    if catalogue is not None:
        return catalogue.folder
    assert old is not None
    return old.image_root


def _check_columns(
    catalogue: Catalogue, carried: tuple[str, ...], command: str, members: tuple[member_files.Member, ...]
) -> None:
    catalogue.require(carried)
    taken = {ID, LOCATION, "feature"}
    if command == "predict":
        taken = {
            ID,
            LOCATION,
            *(n for names in column_names(members[0].kind, members[0].outputs) for n in names),
        }
    for name in carried:
        if name in taken or carried.count(name) > 1:
            raise UserError(f"--carry {name}: the tables have a column of that name already")
    if clash := {"id_str", "member", "pass", *carried} & set(members[0].outputs):
        raise UserError(
            f"{clash.pop()!r} cannot be the name of an answer, a class or a value: the tables use it"
        )


def _refuse_own_inputs(
    output: str, catalogue: Catalogue | None, specs: list[member_files.MemberSpec]
) -> None:
    """--overwrite must not remove what the new run is to be made from."""
    paths = [path for spec in specs for path in (spec.source, spec.checkpoint, spec.encoder) if path]
    for path in [*(catalogue.files if catalogue else ()), *paths]:
        if outputs.is_own(output, path):
            raise UserError(f"--overwrite would remove {path}, which this run needs: copy it elsewhere first")


def _plan(
    command: str,
    options: Options,
    old: Plan | None,
    catalogue: Catalogue | None,
    root: str,
    members: tuple[member_files.Member, ...],
) -> Plan:
    """The plan; the catalogue is read only if its files, or the carried columns, are others than planned before."""
    carried = tuple(options.carry)
    if catalogue is None:
        assert old is not None
        content, rows, digest = {**old.catalogue, "limit": options.limit}, old.rows, old.carried_digest
        if carried != old.carried:
            raise UserError(f"there is no catalogue {options.catalogue} any more to carry other columns from")
    else:
        stamps = catalogue.stamps()
        checked = [options.limit, bool(options.image_root), options.allow_outside, root, options.snippet_size]
        checked.append(_on_dataflow(options))
        known = old is not None and (old.catalogue["files"], old.catalogue["checked"]) == (stamps, checked)
        if old is not None and known and old.carried == carried:
            content, rows, digest = old.catalogue, old.rows, old.carried_digest
        else:
            content, rows, digest = _read(options, catalogue, root, carried)
            content = {"probes": old.catalogue["probes"] if old else [], **content}
        content = {**content, "location": options.catalogue, "files": stamps, "checked": checked}
    return Plan(
        command=command,
        rows=rows,
        catalogue=content,
        image_root=root,
        snippet_size=options.snippet_size,
        members=members,
        first_pass=options.first_pass,
        passes=options.passes,
        seed=options.seed,
        precision=options.precision,
        compile=options.compile,
        fast_images=options.fast_images,
        fast_views=options.fast_views,
        carried=carried,
        carried_digest=digest,
        versions=versions() if old is None else old.versions,
        interval=options.interval,
        table_rows_wanted=plans.TABLE_ROWS if old is None else old.table_rows_wanted,
    )


def _read(
    options: Options, catalogue: Catalogue, root: str, carried: tuple[str, ...]
) -> tuple[dict[str, Any], int, str]:
    """Go over the catalogue once: fingerprint, number of rows, and digest of the carried columns."""
    checker = Checker(
        root,
        root_given=bool(options.image_root),
        allow_outside=options.allow_outside,
        remote=_on_dataflow(options),
    )
    digest = CarriedDigest(carried, options.snippet_size)
    for batch in limited(catalogue.batches(carried), options.limit):
        checker.add(batch)
        digest.add(batch)
    content = {"limit": options.limit, "sha256": checker.finish(catalogue, options.limit)}
    return content, checker.rows, digest.finish()


def _snippets(text: str | None, count: int) -> range:
    """The snippets of a slice A:B, as of a Python list."""
    if text is None:
        return range(count)
    try:
        first, colon, last = text.partition(":")
        if not colon:
            raise ValueError
        chosen = range(count)[slice(int(first) if first else None, int(last) if last else None)]
    except ValueError:
        raise UserError(f"--snippets must be A:B, like a Python slice, not {text!r}") from None
    if not chosen:
        raise UserError(f"--snippets {text} holds no snippet: there are {count}, numbered from 0")
    return chosen


def publish(prepared: Prepared, *, overwrite: bool) -> None:
    """Write the plan, or go on with the one that is there.

    Raises:
        UserError: the output cannot be written, or another job has planned something else there.
        StorageFull: the disk or the quota is full.
    """
    with storage(prepared.run.output):
        _publish(prepared, overwrite)


def _publish(prepared: Prepared, overwrite: bool) -> None:
    run, catalogue = prepared.run, prepared.catalogue
    plan, output = run.plan, run.output

    def rows():  # the catalogue once more, now with the carried columns
        assert catalogue is not None
        return limited(catalogue.batches(plan.carried), plan.catalogue["limit"])

    if overwrite:
        outputs.clear(output)
    if not prepared.plan_is_new:
        plans.update(plan, output, rows() if catalogue is not None else None)
        return
    plans.write(plan, output, rows(), prepared.staged)
    there = plans.read(output)
    if there is None or there.fingerprint != plan.fingerprint:
        raise UserError(
            f"another job has just planned a run with other settings in {output}: use another --output"
        )
    if there.tables_fingerprint != plan.tables_fingerprint:
        raise UserError(
            f"another job has just begun to carry other columns, or other intervals, into {output}: use the same"
        )
