"""From options to a run: every check that needs no worker, then the plan."""

import dataclasses
import os
import sys

from beam_zoo import members as member_files
from beam_zoo import output as outputs
from beam_zoo import parts
from beam_zoo import plan as plans
from beam_zoo.catalogue import ID, LOCATION, Catalogue, Checker, find, limited
from beam_zoo.errors import UserError, near_path
from beam_zoo.files import storage
from beam_zoo.images import ImageError, image_path, load_image
from beam_zoo.inference import usable_device
from beam_zoo.plan import Plan
from beam_zoo.resolve import resolve
from beam_zoo.run import Run
from beam_zoo.tables import column_names
from beam_zoo.versions import changes, versions
from pipelines.options import Options, models_of
from runners import direct

PROBES = 16


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that passed all checks.

    Attributes:
        run: the run.
        plan_is_new: whether the output had no plan yet.
        catalogue: where the rows are, or None where the stored plan stands for it.
        staged: what is to be copied below the output's plan.
        snippets: numbers of the snippets to predict.
    """

    run: Run
    plan_is_new: bool
    catalogue: Catalogue | None
    staged: dict[str, str]
    snippets: range


def prepare(command: str, options: Options) -> Prepared:
    """All checks, in an order that finds cheap mistakes first. Nothing is written.

    Raises:
        UserError: the first thing that is wrong.
    """
    for name in ("catalogue", "models", "output"):
        if not options.values[name]:
            raise UserError(f"--{name} is missing (--help lists the options)")
    output = (
        os.path.abspath(os.path.expanduser(options.output)) if "://" not in options.output else options.output
    )
    outputs.check(output, overwrite=options.overwrite)
    if options.snippets and options.overwrite:
        raise UserError("--overwrite and --snippets do not go together: it would remove other tasks' samples")
    device = usable_device(options.device, options.precision)
    old = None if options.overwrite else plans.read(output)
    specs = [member_files.read_member(path) for path in models_of(options.models)]
    _check_names(specs)
    previous = {member.name: member for member in old.members} if old else {}
    represent = command == "represent"
    resolved = [resolve(spec, previous.get(spec.name), output, represent=represent) for spec in specs]
    members = tuple(member for member, _ in resolved)
    _check_agreement(members, represent)
    catalogue = _find_catalogue(options, old)
    root = _image_root(options, catalogue, old)
    carried = tuple(options.carry)
    if catalogue is not None:
        _check_columns(catalogue, carried, command, members)
    content, rows = _content(options, catalogue, old, root)
    plan = Plan(
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
        carried=carried,
        versions=versions() if old is None else old.versions,
    )
    if old is not None and (found := plans.differences(old, plan)):
        raise UserError(
            f"{output} holds a run with other settings: {'; '.join(found)}. Use another --output, or --overwrite"
        )
    if old is not None and (changed := changes(old.versions, versions())):
        print(f"note: the run began with other versions: {changed}", file=sys.stderr)
    if catalogue is None and carried and not os.path.isdir(plan.carried_folder(output)):
        raise UserError(f"there is no catalogue {options.catalogue} any more to carry other columns from")
    snippets = _snippets(options.snippets, plan.snippets)
    stored = {} if old is None else parts.stored_parts(plan, output)
    if catalogue is not None and any(number not in stored for number in snippets):
        _probe_images(catalogue, plan, root, options.max_failure_fraction)
    staged = {m.path: path for m, path in resolved if m.path != path and not path.startswith(output + os.sep)}
    run = Run(plan, output, root, options.batch_size, device, direct.threads(options.beam))
    return Prepared(run, old is None, catalogue, staged, snippets)


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


def _find_catalogue(options: Options, old: Plan | None) -> Catalogue | None:
    """The catalogue, or None where it is gone and the plan made from it is still there."""
    location = options.catalogue
    if old is not None and old.catalogue["location"] == location and not os.path.exists(location):
        gone = [not os.path.exists(file) for file, _, _ in old.catalogue["files"]]
        if all(gone):
            print(f"{location} is not there any more: going on with the plan made from it", file=sys.stderr)
            return None
    return find(os.path.expanduser(options.catalogue))


def _image_root(options: Options, catalogue: Catalogue | None, old: Plan | None) -> str:
    if options.image_root:
        root = os.path.expanduser(options.image_root)
        if "://" not in root:
            root = os.path.abspath(root)
            if not os.path.isdir(root):
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


def _content(options: Options, catalogue: Catalogue | None, old: Plan | None, root: str) -> tuple[dict, int]:
    """Fingerprint and number of the catalogue's rows, read only if its files have changed since it was planned."""
    if catalogue is None:
        assert old is not None
        return {**old.catalogue, "limit": options.limit}, old.rows
    stamps = catalogue.stamps()
    checked = [options.limit, bool(options.image_root), options.allow_outside, root]
    if old is not None and old.catalogue["files"] == stamps and old.catalogue["checked"] == checked:
        return {**old.catalogue, "location": options.catalogue}, old.rows
    checker = Checker(root, root_given=bool(options.image_root), allow_outside=options.allow_outside)
    for batch in limited(catalogue.batches(), options.limit):
        checker.add(batch)
    digest = checker.finish(catalogue, options.limit)
    content = {
        "location": options.catalogue,
        "files": stamps,
        "checked": checked,
        "limit": options.limit,
        "sha256": digest,
    }
    return content, checker.rows


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


def _probe_images(catalogue: Catalogue, plan: Plan, root: str, max_failure_fraction: float) -> None:
    """Open a few images spread over the catalogue: an unmounted disk must not cost a day."""
    wanted = sorted({round(i * (plan.rows - 1) / max(1, PROBES - 1)) for i in range(PROBES)})
    locations: list[str] = []
    start = 0
    for batch in limited(catalogue.batches(), plan.catalogue["limit"]):
        inside = [row - start for row in wanted if start <= row < start + len(batch)]
        locations += [batch.column(LOCATION)[row].as_py() or "" for row in inside]
        start += len(batch)
        if len(locations) == len(wanted):
            break
    reason = ""
    for location in locations:
        try:
            if not location:
                raise ImageError(f"a row without {LOCATION}", may_pass=False)
            load_image(image_path(location, root))
            return
        except ImageError as error:
            reason = reason or str(error)
    if max_failure_fraction >= 1:
        print(f"warning: none of {len(locations)} images can be opened, first: {reason}", file=sys.stderr)
        return
    raise UserError(
        f"none of {len(locations)} images spread over the catalogue can be opened (first: {reason}): "
        "check --image_root, or give --max_failure_fraction 1 to go on all the same"
    )


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

    if overwrite and outputs.is_output(output):
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
