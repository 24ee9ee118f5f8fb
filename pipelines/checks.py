"""The checks of `prepare`, each of one thing; what is wrong is one line that says what to do."""

import dataclasses
import os
import sys
from collections.abc import Sequence

from beam_zoo.catalogue.read import ID, LOCATION, Catalogue, find
from beam_zoo.errors import UserError, near_path
from beam_zoo.images.decoders import AHEAD
from beam_zoo.images.fast_views import FastView
from beam_zoo.members.compatible import check_compatible
from beam_zoo.members.member import Member, MemberSpec, read_member
from beam_zoo.members.resolve import resolve
from beam_zoo.plan import plan as plans
from beam_zoo.plan.plan import MIXTURE, Plan
from beam_zoo.runtime.device import usable_device
from beam_zoo.runtime.versions import changes, source, versions
from beam_zoo.storage import output as outputs
from beam_zoo.storage.files import absolute, exists, is_remote
from beam_zoo.tables.columns import column_names
from pipelines.options import Options, models_of
from runners import beam_options
from runners.dataflow import checks as dataflow
from runners.dataflow import image, preset


@dataclasses.dataclass(frozen=True)
class Engine:
    """What the runner is to the run.

    Attributes:
        device: `cpu` or `cuda`; `auto` where only a worker can know.
        is_remote: whether workers see no local files.
        hints: Beam's resource hints of the steps that need a GPU, where a runner gives it to those only.
        source: digest of this program's source, for workers that have a copy of their own; else empty.
    """

    device: str
    is_remote: bool = False
    hints: dict[str, str] = dataclasses.field(default_factory=dict)
    source: str = ""


def required(options: Options) -> None:
    """Refuse options without which there is nothing to do, and those that exclude each other."""
    for name in ("catalogue", "models", "output"):
        if not options.values[name]:
            raise UserError(f"--{name} is missing (--help lists the options)")
    if options.work.snippets and options.work.overwrite:
        raise UserError("--overwrite and --snippets do not go together: it would remove other tasks' samples")


def engine(options: Options) -> Engine:
    """Refuse a device, or settings of Dataflow, that the members could not run on."""
    asked, precision, flags = options.work.device, options.sampling.precision, options.beam
    runner = beam_options.runner_name(flags)
    if runner == beam_options.DIRECT:
        device = usable_device(asked, precision)
        if options.sampling.gpu_decoder and not AHEAD[device]:
            raise UserError("this machine has no GPU: leave --gpu_decoder out")
        return Engine(device)
    if runner != beam_options.DATAFLOW:
        # On a cluster only a worker can know its device, and says so before its first image.
        return Engine(asked)
    locations = {name: options.values[name] for name in ("output", "catalogue", "image_root")}
    dataflow.check(flags, locations, asked, precision)
    device = preset.device(flags)
    if device == "cpu":
        usable_device(device, precision)
    return Engine(device, True, preset.chain_hint(flags), source())


def workers_image(options: Options, engine: Engine) -> None:
    """Refuse an image that Dataflow's workers could not use."""
    if engine.is_remote:
        image.check(options.beam, gpu=engine.device == "cuda")


def read_members(models: Sequence[str | MemberSpec]) -> list[MemberSpec]:
    """The members as their YAML files describe them; refuse two of one name."""
    specs: list[MemberSpec] = []
    for model in models:
        specs += [model] if isinstance(model, MemberSpec) else map(read_member, models_of([model]))
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two members are named {name!r}: names tell their samples apart")
    return specs


def resolve_members(
    command: str, specs: Sequence[MemberSpec], old: Plan | None, output: str
) -> tuple[tuple[Member, ...], dict[str, str]]:
    """Find and load every checkpoint; refuse members that do not go together.

    Returns:
        The members, and path below the output -> the checkpoint of which a copy is to lie there.
    """
    previous = {member.name: member for member in old.members} if old else {}
    represent = command == "represent"
    resolved = [resolve(spec, previous.get(spec.name), output, represent=represent) for spec in specs]
    members = tuple(member for member, _ in resolved)
    if not represent:
        check_compatible([(member.name, member) for member in members])
    return members, {
        member.path: path
        for member, path in resolved
        if member.path != path and not path.startswith(output + os.sep)
    }


def settings_fit(command: str, options: Options, members: tuple[Member, ...]) -> None:
    """Refuse settings that these members cannot have."""
    sampling = options.sampling
    if sampling.gpu_decoder and not sampling.fast_views:
        raise UserError("--gpu_decoder needs --fast_views: give both, or leave it out")
    for member in members if sampling.gpu_decoder else ():
        if member.random_view:  # its draws take longer than decoding, and are made by processes
            raise UserError(f"member {member.name} has random views: leave --gpu_decoder out")
    for member in members if sampling.fast_views else ():
        try:
            FastView(member.view)
        except UserError as error:
            raise UserError(f"member {member.name}: {error}") from None
    if options.tables.interval == MIXTURE and (command == "represent" or members[0].kind != "tree"):
        raise UserError("--interval mixture is for vote fractions: leave it out")


def find_catalogue(location: str, old: Plan | None) -> Catalogue | None:
    """The catalogue, or None where it is gone and the plan made from it is still there."""
    before = old.catalogue if old is not None and old.catalogue.location == location else None
    if before and not os.path.exists(location) and not any(exists(file.path) for file in before.files):
        print(f"{location} is not there any more: going on with the plan made from it", file=sys.stderr)
        return None
    return find(os.path.expanduser(location))


def inputs_survive(output: str, catalogue: Catalogue | None, specs: Sequence[MemberSpec]) -> None:
    """--overwrite must not remove what the new run is to be made from."""
    paths = [path for spec in specs for path in (spec.source, spec.checkpoint, spec.encoder) if path]
    for path in [*(catalogue.files if catalogue else ()), *paths]:
        if outputs.is_own(output, path):
            raise UserError(f"--overwrite would remove {path}, which this run needs: copy it elsewhere first")


def image_root(given: str | None, catalogue: Catalogue | None, old: Plan | None) -> str:
    """Where relative image paths start; refuse a folder that is not there."""
    if given:
        root = absolute(given)
        if not is_remote(root) and not os.path.isdir(root):
            what = "is not a folder" if os.path.exists(root) else f"does not exist{near_path(root)}"
            raise UserError(f"--image_root {root} {what}")
        return root
    if catalogue is not None:
        return catalogue.folder
    assert old is not None
    return old.image_root


def columns(
    command: str, catalogue: Catalogue | None, carried: tuple[str, ...], members: tuple[Member, ...]
) -> None:
    """Refuse a catalogue without the columns that are needed, and names that the tables use themselves."""
    if catalogue is not None:
        catalogue.require(carried)
        names(command, carried, members)


def names(command: str, carried: tuple[str, ...], members: tuple[Member, ...]) -> None:
    """Refuse carried columns, and outputs of the members, with names that the tables use themselves."""
    own = ["feature"]
    if command == "predict":
        friendly, advanced = column_names(members[0].kind, members[0].outputs)
        own = [*friendly, *advanced]
    for name in carried:
        if name in (ID, LOCATION, *own) or carried.count(name) > 1:
            raise UserError(f"--carry {name}: the tables have a column of that name already")
    if clash := {ID, "member", "pass", *carried} & set(members[0].outputs):
        raise UserError(
            f"{clash.pop()!r} cannot be the name of an answer, a class or a value: the tables use it"
        )


def same_run(output: str, old: Plan | None, plan: Plan) -> None:
    """Refuse to go on with a run of other settings; note other versions of libraries."""
    if old is None:
        return
    if found := plans.differences(old, plan):
        changed = f"{output} holds a run with other settings: {'; '.join(found)}"
        raise UserError(f"{changed}. Use another --output, or --overwrite")
    if changed := changes(old.versions, versions()):
        print(f"note: the run began with other versions: {changed}", file=sys.stderr)


def chosen_snippets(text: str | None, count: int) -> range:
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
