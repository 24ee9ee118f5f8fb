"""Planning a member: find its checkpoint, pin it, and hold it against what its YAML says."""

import os
from typing import Any

import torch

from beam_zoo import checkpoints, hub
from beam_zoo import schema as schemas
from beam_zoo.errors import UserError, did_you_mean
from beam_zoo.members import HUB, Member, MemberSpec, schema_json
from beam_zoo.views import is_random

STAGED = "_plan/members"


def resolve(spec: MemberSpec, previous: Member | None, output: str, *, represent: bool) -> tuple[Member, str]:
    """Everything that planning finds out about a member.

    Args:
        spec: what its YAML says.
        previous: the member of that name in the output's plan, if there is one: a checkpoint of the hub
            or of remote storage that it has pinned and staged is not asked for again.
        output: folder of the output.
        represent: features are wanted, so schema, class_names and value_name may be absent.

    Returns:
        The member, and the path where its checkpoint is now. The two paths differ where the file is
        still to be staged below the output's plan.

    Raises:
        UserError: the checkpoint cannot be had, loaded, or does not fit the YAML.
    """
    if spec.kind == "encoder" and not represent:
        raise spec.error("a ZoobotEncoder has features and no answers: use python -m pipelines.represent")
    if previous is not None and (previous.checkpoint, previous.encoder) != (spec.checkpoint, spec.encoder):
        previous = None
    remote = spec.checkpoint.startswith(HUB) or "://" in spec.checkpoint
    path, revision = _locate(spec, previous, output)
    data = checkpoints.read_file(path)
    try:
        content = checkpoints.parse(data, path, trust=spec.trust_checkpoint)
        own = content["hyper_parameters"]
        architecture, kwargs = _architecture(spec, own, previous)
        _check_channels(spec, own)
        with torch.device("meta"):
            model = checkpoints.build(
                spec.zoobot_class, content, architecture, kwargs, greyscale=spec.greyscale, path=path
            )
        schema, outputs, rate = None, (), 0.0
        if not represent:
            schema, outputs = _outputs(spec, own, model)
            rate = _dropout_rate(spec, own, model)
    except UserError as error:
        raise spec.error(str(error)) from None
    digest = checkpoints.sha256(data)
    member = Member(
        name=spec.name,
        zoobot_class=spec.zoobot_class,
        checkpoint=spec.checkpoint,
        path=f"{STAGED}/{digest[:16]}{os.path.splitext(path)[1]}" if remote else path,
        sha256=digest,
        revision=revision,
        architecture=architecture,
        architecture_kwargs=kwargs,
        encoder=spec.encoder,
        schema=schema,
        outputs=outputs,
        view=spec.view,
        greyscale=spec.greyscale,
        dropout_rate=rate,
        random_view=is_random(spec.view),
        trust_checkpoint=spec.trust_checkpoint,
    )
    return member, path


def _locate(spec: MemberSpec, previous: Member | None, output: str) -> tuple[str, str | None]:
    if previous is not None and previous.path.startswith(STAGED):
        return os.path.join(output, previous.path), previous.revision
    if spec.checkpoint.startswith(HUB):
        try:
            return hub.fetch(spec.checkpoint, hub.checkpoint_names(spec.zoobot_class))
        except UserError as error:
            raise spec.error(str(error)) from None
    if "://" not in spec.checkpoint and not os.path.isfile(spec.checkpoint):
        raise spec.error(f"there is no checkpoint {spec.checkpoint}{_near_file(spec.checkpoint)}")
    return spec.checkpoint, None


def _near_file(path: str) -> str:
    folder = os.path.dirname(path)
    return did_you_mean(os.path.basename(path), os.listdir(folder)) if os.path.isdir(folder) else ""


def _architecture(
    spec: MemberSpec, own: dict[str, Any], previous: Member | None
) -> tuple[str | None, dict[str, Any]]:
    """The encoder's timm architecture and its arguments, or None where the checkpoint itself builds it."""
    if spec.zoobot_class == "ZoobotTree":
        named = own.get("architecture_name", "convnext_nano")
        if spec.encoder not in (None, named):
            raise UserError(
                f"encoder: its ZoobotTree checkpoint is a {named}, not a {spec.encoder}: remove encoder"
            )
        return None, {}
    name = spec.encoder or own.get("name") or (spec.checkpoint if spec.checkpoint.startswith(HUB) else None)
    if name is None:
        raise UserError(
            "encoder is missing: the checkpoint was saved without its encoder's architecture "
            "(give a timm name such as convnext_nano, or a ZoobotTree checkpoint of that architecture)"
        )
    if name.startswith(HUB) or name.startswith("hf-hub:"):
        if previous is not None and previous.architecture is not None:
            return previous.architecture, previous.architecture_kwargs
        return hub.architecture(HUB + name.removeprefix(HUB).removeprefix("hf-hub:"))
    if os.path.sep in name:
        tree = checkpoints.parse(checkpoints.read_file(name), name, trust=False)["hyper_parameters"]
        if "architecture_name" not in tree:
            raise UserError(f"encoder: {name} is not a ZoobotTree checkpoint, so it names no architecture")
        return tree["architecture_name"], dict(tree.get("timm_kwargs") or {})
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise UserError(f"encoder: timm has no architecture {name!r}{did_you_mean(name, timm.list_models())}")
    return name, {}


def _check_channels(spec: MemberSpec, own: dict[str, Any]) -> None:
    grey = own.get("channels") == 1 if spec.zoobot_class == "ZoobotTree" else own.get("greyscale")
    if grey is not None and bool(grey) != spec.greyscale:
        kind = "greyscale" if grey else "colour"
        raise UserError(f"the checkpoint takes {kind} images: set greyscale: {str(bool(grey)).lower()}")


def _outputs(
    spec: MemberSpec, own: dict[str, Any], model: torch.nn.Module
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The schema (of a tree) and the names of the outputs, held against the checkpoint."""
    if spec.kind == "tree":
        schema = _tree_schema(spec, own, model.head[1][0].out_features)
        made = schemas.make_schema(schema["question_answer_pairs"], schema["dependencies"])
        return schema, tuple(made.label_cols)
    if spec.kind == "classifier":
        width = model.head.linear.out_features
        if spec.class_names is None or len(spec.class_names) != width:
            given = "are missing" if spec.class_names is None else f"are {len(spec.class_names)}"
            raise UserError(
                f"class_names {given}, and the checkpoint has {width} classes: name each, in order"
            )
        return None, spec.class_names
    if spec.value_name is None:
        raise UserError("value_name is missing: the name of the regressor's column in the tables")
    return None, (spec.value_name,)


def _tree_schema(spec: MemberSpec, own: dict[str, Any], width: int) -> dict[str, Any]:
    carried = own.get("question_answer_pairs")
    dependencies = own.get("dependencies")
    if spec.zoobot_class == "FinetuneableZoobotTree" and own.get("schema") is not None:
        carried = own["schema"].question_answer_pairs
        dependencies = own["schema"].dependencies
    if spec.schema is None:
        if not carried:
            raise UserError("schema is missing, and the checkpoint carries no questions of its own")
        return schema_json(schemas.make_schema(carried, {q: (dependencies or {}).get(q) for q in carried}))
    pairs = spec.schema["question_answer_pairs"]
    if carried and (why := schemas.difference(carried, pairs)):
        raise UserError(f"the checkpoint's questions are not the schema's: {why}")
    labels = sum(len(answers) for answers in pairs.values())
    if width != labels:
        raise UserError(f"the checkpoint has {width} outputs, and the schema {labels} answers")
    return spec.schema


def _dropout_rate(spec: MemberSpec, own: dict[str, Any], model: torch.nn.Module) -> float:
    """Rate of the head's dropout, 0 where it is not applied at test time."""
    wanted = spec.test_time_dropout
    if wanted is None:
        wanted = spec.zoobot_class == "ZoobotTree" and bool(own.get("test_time_dropout", False))
    dropout = model.head[0] if spec.kind == "tree" else model.head.dropout
    return float(dropout.p) if wanted else 0.0
