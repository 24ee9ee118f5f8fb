"""Plans a member: finds its checkpoint, pins it, and checks it against the member's YAML file."""

import json
import os
from typing import Any

import torch

from beam_zoo.errors import UserError, did_you_mean, near_path, one_line
from beam_zoo.images.views import View, is_random
from beam_zoo.members import checkpoints, hub
from beam_zoo.members import schema as schemas
from beam_zoo.members.member import HUB, Member, MemberSpec, schema_json
from beam_zoo.storage import files
from beam_zoo.storage.layout import STAGED_MEMBERS


def resolve(spec: MemberSpec, previous: Member | None, output: str, *, represent: bool) -> tuple[Member, str]:
    """Everything that planning finds out about a member.

    Args:
        spec: what its YAML says.
        previous: the member of that name in the output's plan, if there is one: a checkpoint of the hub
            or of remote storage that it has pinned and staged is not asked for again.
        output: folder of the output.
        represent: features are wanted, so schema, class_names and value_name may be absent.

    Returns:
        The member, and the path where its checkpoint is now. It differs from the member's path if the file is
        still to be staged below the output's plan.

    Raises:
        UserError: the checkpoint cannot be had, loaded, or does not fit the YAML.
    """
    if spec.kind == "encoder" and not represent:
        raise spec.error("a ZoobotEncoder has features and no answers: use python -m pipelines.represent")
    planned = previous is not None
    if previous is not None and (previous.checkpoint, previous.encoder) != (spec.checkpoint, spec.encoder):
        previous = None
    # Workers on other machines can read what is staged with the plan, or a shared disk.
    elsewhere = spec.checkpoint.startswith(HUB) or any(map(files.is_remote, (spec.checkpoint, output)))
    path, revision = _locate(spec, previous, output)
    try:
        data = files.read_file(path)
        digest = files.sha256(data)
        staged = previous is not None and previous.path.startswith(STAGED_MEMBERS)
        if previous is not None and staged and digest != previous.sha256:
            raise UserError(
                f"{path} is not the checkpoint any more that the run was planned with "
                f"(SHA-256 {digest[:12]}..., planned {previous.sha256[:12]}...)"
            )
        content = checkpoints.parse(data, path, trust=spec.trust_checkpoint)
        own = content["hyper_parameters"]
        _check_class(spec, own)
        _check_channels(spec, own)
        architecture, kwargs = _architecture(spec, own, previous, revision)
        model = _build(spec, content, architecture, kwargs, path)
        features = _check_view(spec, model)
        schema: dict[str, Any] | None = None
        outputs: tuple[str, ...] = ()
        rate = 0.0
        if not represent:
            schema, outputs = _outputs(spec, own, model)
            rate = _dropout_rate(spec, own, model)
    except UserError as error:
        raise spec.error(str(error)) from None
    member = Member(
        name=spec.name,
        zoobot_class=spec.zoobot_class,
        checkpoint=spec.checkpoint,
        # Files are staged only when a plan is made: a plan that names a local file keeps it.
        path=f"{STAGED_MEMBERS}/{digest[:16]}{os.path.splitext(path)[1]}"
        if staged or (elsewhere and not planned)
        else path,
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
        features=features,
    )
    return member, path


def _locate(spec: MemberSpec, previous: Member | None, output: str) -> tuple[str, str | None]:
    if previous is not None and previous.path.startswith(STAGED_MEMBERS):
        return os.path.join(output, previous.path), previous.revision
    if spec.checkpoint.startswith(HUB):
        try:
            return hub.fetch(spec.checkpoint, hub.checkpoint_names(spec.zoobot_class))
        except UserError as error:
            raise spec.error(str(error)) from None
    if not files.is_remote(spec.checkpoint) and not os.path.exists(spec.checkpoint):
        raise spec.error(f"there is no checkpoint {spec.checkpoint}{near_path(spec.checkpoint)}")
    return spec.checkpoint, None


def _check_class(spec: MemberSpec, own: dict[str, Any]) -> None:
    saved = checkpoints.saved_class(own)
    if saved is not None and spec.zoobot_class not in (saved, "ZoobotEncoder"):
        raise UserError(f"the checkpoint is of a {saved}: set zoobot_class: {saved}")


def _build(
    spec: MemberSpec,
    content: checkpoints.Checkpoint,
    architecture: str | None,
    kwargs: dict[str, Any],
    path: str,
) -> Any:
    """The model without its weights: on torch's meta device, unless the architecture needs a real one."""
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                return checkpoints.build(
                    spec.zoobot_class, content, architecture, kwargs, greyscale=spec.greyscale, path=path
                )
        except UserError as error:
            if device == "cpu" or "meta tensor" not in str(error):
                raise
    raise AssertionError("unreachable")


def _check_view(spec: MemberSpec, model: Any) -> int:
    """Refuse a view that the encoder cannot take, by shapes only; the number of features, 0 if unknown."""
    shape = View(spec.view).shape
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            features = model.encoder(torch.zeros((2, *shape), device=device))
    except NotImplementedError:
        return 0  # some operations exist on real devices only
    except Exception as error:
        if "meta tensor" in str(error):
            return 0
        sizes = f"{shape[1]} x {shape[2]} pixels"
        raise UserError(f"view: the encoder cannot take {sizes}: {one_line(error, 150)}") from None
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise UserError("the encoder does not pool its features into one vector per image")
    return features.shape[1]


def _architecture(
    spec: MemberSpec, own: dict[str, Any], previous: Member | None, revision: str | None
) -> tuple[str | None, dict[str, Any]]:
    """The encoder's timm architecture and its arguments, or None where the checkpoint itself builds it."""
    if spec.zoobot_class == "ZoobotTree":
        named = own.get("architecture_name", "convnext_nano")
        if spec.encoder not in (None, named):
            raise UserError(f"encoder: its checkpoint is a {named}, not a {spec.encoder}: remove encoder")
        if not hub.is_hub_name(str(named)):
            return None, {}
        name = named
    else:
        name = spec.encoder or own.get("name") or own.get("architecture_name")
    if name is None and spec.zoobot_class == "ZoobotEncoder" and hub.is_hub_name(spec.checkpoint):
        # Its config.json, of the same commit as the weights.
        name = f"{spec.checkpoint.partition('@')[0]}@{revision}"
    if not isinstance(name, str):
        made_from = own.get("zoobot_checkpoint_loc")
        raise UserError(
            "encoder is missing: the checkpoint was saved without its encoder's architecture "
            "(give a timm name such as convnext_nano, or the path of a ZoobotTree checkpoint of that "
            "architecture" + (f"; it was made from {one_line(made_from, 200)})" if made_from else ")")
        )
    if hub.is_hub_name(name):
        if previous is not None and previous.architecture is not None:
            return previous.architecture, previous.architecture_kwargs
        return hub.architecture(name)
    if name == spec.encoder and "/" in name:
        return _architecture_of(name, trust=spec.trust_checkpoint)
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise UserError(f"encoder: timm has no architecture {name!r}{did_you_mean(name, timm.list_models())}")
    return name, {}


def _architecture_of(path: str, *, trust: bool) -> tuple[str, dict[str, Any]]:
    """The architecture of a ZoobotTree checkpoint's encoder."""
    if not files.is_remote(path) and not os.path.exists(path):
        raise UserError(f"encoder: there is no checkpoint {path}{near_path(path)}")
    tree = checkpoints.parse(files.read_file(path), path, trust=trust)["hyper_parameters"]
    named = tree.get("architecture_name")
    if not isinstance(named, str) or hub.is_hub_name(named):
        raise UserError(
            f"encoder: {path} is not a ZoobotTree checkpoint that names a timm architecture: "
            "give the architecture's name"
        )
    try:
        # As JSON restores them, so that the next command's are equal to those of the stored plan.
        return named, json.loads(json.dumps(tree.get("timm_kwargs") or {}))
    except (TypeError, ValueError):
        raise UserError(f"encoder: {path} has timm_kwargs that are not plain values") from None


def _check_channels(spec: MemberSpec, own: dict[str, Any]) -> None:
    """Refuse other channels than a ZoobotTree records; for other classes, loading the weights does."""
    if spec.zoobot_class != "ZoobotTree":
        return
    channels = own.get("channels", 3)
    if channels not in (1, 3):
        raise UserError(f"the checkpoint takes images of {channels} channels, not colour or greyscale ones")
    if (channels == 1) != spec.greyscale:
        kind = "greyscale" if channels == 1 else "colour"
        raise UserError(f"the checkpoint takes {kind} images: set greyscale: {str(channels == 1).lower()}")


def _outputs(
    spec: MemberSpec, own: dict[str, Any], model: Any
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The schema (of a tree) and the names of the outputs, checked against the checkpoint."""
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
    holder = own["schema"] if spec.zoobot_class == "FinetuneableZoobotTree" else None
    carried = getattr(holder, "question_answer_pairs", None) if holder else own.get("question_answer_pairs")
    dependencies = getattr(holder, "dependencies", None) if holder else own.get("dependencies")
    if spec.schema is not None:
        schema = spec.schema
        if carried and (why := schemas.difference(carried, schema["question_answer_pairs"])):
            raise UserError(f"the checkpoint's questions are not the schema's: {why}")
    else:
        if isinstance(carried, dict) and isinstance(dependencies, dict):
            # zoobot's own schemas share one mapping, which holds the questions of other surveys too.
            dependencies = {question: dependencies.get(question) for question in carried}
        schema = schema_json(schemas.make_schema(carried, dependencies))
    labels = sum(len(answers) for answers in schema["question_answer_pairs"].values())
    if width != labels:
        raise UserError(f"the checkpoint has {width} outputs, and the schema {labels} answers")
    return schema


def _dropout_rate(spec: MemberSpec, own: dict[str, Any], model: Any) -> float:
    """Rate of the head's dropout, 0 where it is not applied at test time."""
    wanted = spec.test_time_dropout
    if wanted is None:
        wanted = spec.zoobot_class == "ZoobotTree" and bool(own.get("test_time_dropout", False))
    dropout = model.head[0] if spec.kind == "tree" else model.head.dropout
    return float(dropout.p) if wanted else 0.0
