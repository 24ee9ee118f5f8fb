"""The members of the ensemble: as their YAML files describe them, and as planning completes them."""

import dataclasses
from typing import Any

from beam_zoo.errors import UserError, did_you_mean
from beam_zoo.members import schema as schemas
from beam_zoo.storage.files import absolute, beside
from beam_zoo.storage.yaml_files import load_yaml

KINDS = {
    "ZoobotTree": "tree",
    "FinetuneableZoobotTree": "tree",
    "FinetuneableZoobotClassifier": "classifier",
    "FinetuneableZoobotRegressor": "regressor",
    "ZoobotEncoder": "encoder",
}
HUB = "hf_hub:"


@dataclasses.dataclass(frozen=True)
class MemberSpec:
    """A member as its YAML file describes it; see docs/members.md for the keys.

    Attributes:
        source: path of the YAML file; relative paths in it start at its folder.
        schema: question_answer_pairs and dependencies, or None to take the checkpoint's own.
        view: every setting of the view.
        test_time_dropout: None to do as the checkpoint was saved.
    """

    source: str
    name: str
    zoobot_class: str
    checkpoint: str
    view: dict[str, Any]
    encoder: str | None = None
    schema: dict[str, Any] | None = None
    greyscale: bool = False
    test_time_dropout: bool | None = None
    class_names: tuple[str, ...] | None = None
    value_name: str | None = None
    trust_checkpoint: bool = False

    @property
    def kind(self) -> str:
        """`tree`, `classifier`, `regressor` or `encoder`."""
        return KINDS[self.zoobot_class]

    def error(self, text: str) -> UserError:
        """An error that names this member's file."""
        return UserError(f"{self.source}: {text}")


@dataclasses.dataclass(frozen=True)
class Member:
    """A member after planning: all that a worker needs to load and use it.

    Attributes:
        path: the checkpoint file: local, remote, or relative to the output where it was staged there.
        sha256: of the checkpoint file, in hexadecimal.
        revision: the hub's commit that the file is of, if it came from there.
        architecture: timm architecture of the encoder, or None where a ZoobotTree checkpoint names it.
        architecture_kwargs: its arguments, where the checkpoint's own timm_kwargs do not say otherwise.
        schema: question_answer_pairs and dependencies of a tree, else None.
        outputs: names of the answers, classes or the value; empty for an encoder.
        dropout_rate: rate of the dropout that makes passes differ; 0 where they would not.
        random_view: whether every pass has a view of its own.
        features: how many features its encoder has; 0 if only a run can tell.
    """

    name: str
    zoobot_class: str
    checkpoint: str
    path: str
    sha256: str
    revision: str | None
    architecture: str | None
    architecture_kwargs: dict[str, Any]
    encoder: str | None
    schema: dict[str, Any] | None
    outputs: tuple[str, ...]
    view: dict[str, Any]
    greyscale: bool
    dropout_rate: float
    random_view: bool
    trust_checkpoint: bool
    features: int = 0

    @property
    def kind(self) -> str:
        """`tree`, `classifier`, `regressor` or `encoder`."""
        return KINDS[self.zoobot_class]

    @property
    def random_of(self) -> str | None:
        """Its name if its view is random, so that no other member shares the view; else None."""
        return self.name if self.random_view else None

    @property
    def passes_differ(self) -> bool:
        """Whether two passes over the same galaxy may give different samples."""
        return self.random_view or self.dropout_rate > 0

    def for_workers(self) -> "Member":
        """The member without the origin of its checkpoint, which concerns the planning machine only."""
        return dataclasses.replace(self, checkpoint="", encoder=None)

    def identity(self) -> dict[str, Any]:
        """Only what can change this member's numbers: its share of the plan's fingerprint."""
        leave_out = {"checkpoint", "path", "revision", "encoder", "trust_checkpoint", "features"}
        return {k: v for k, v in to_json(self).items() if k not in leave_out}


def to_json(member: Member) -> dict[str, Any]:
    """The member as plain values, for the plan and the manifest."""
    return {**dataclasses.asdict(member), "outputs": list(member.outputs)}


def from_json(data: dict[str, Any]) -> Member:
    """The inverse of `to_json`."""
    return Member(**{**data, "outputs": tuple(data["outputs"])})


def read_member(path: str) -> MemberSpec:
    """Read and check one member's YAML file, without opening its checkpoint.

    Raises:
        UserError: a missing, unknown or impossible setting, naming the nearest valid one.

    >>> beam_zoo.read_member("a.yaml").name
    'demo_a'
    """
    content = load_yaml(path)
    known = [f.name for f in dataclasses.fields(MemberSpec) if f.name != "source"]
    for key in content:
        if key not in known:
            raise UserError(f"{path}: no key {key!r}{did_you_mean(key, known)}")
    for key in ("name", "zoobot_class", "checkpoint", "view"):
        if content.get(key) is None:
            raise UserError(f"{path}: {key} is missing")
    for key in ("name", "zoobot_class", "checkpoint", "encoder", "value_name"):
        if content.get(key) is not None and (not isinstance(content[key], str) or not content[key]):
            raise UserError(f"{path}: {key} must be text, not {content[key]!r}")
    for key in ("greyscale", "trust_checkpoint"):
        if not isinstance(content.get(key, False), bool):
            raise UserError(f"{path}: {key} must be true or false, not {content[key]!r}")
    _check_name(path, content["name"])
    if content["zoobot_class"] not in KINDS:
        wrong = content["zoobot_class"]
        raise UserError(f"{path}: no zoobot_class {wrong!r}{did_you_mean(wrong, KINDS)}")
    dropout = content.get("test_time_dropout", "checkpoint")
    if not isinstance(dropout, bool) and dropout != "checkpoint":
        raise UserError(f"{path}: test_time_dropout must be checkpoint, true or false, not {dropout!r}")
    kind = KINDS[content["zoobot_class"]]
    if content.get("value_name") is not None and kind != "regressor":
        raise UserError(f"{path}: value_name is for a FinetuneableZoobotRegressor")
    return MemberSpec(
        source=path,
        name=content["name"],
        zoobot_class=content["zoobot_class"],
        checkpoint=_beside(path, content["checkpoint"]),
        view=_view(path, content),
        encoder=_encoder(path, content.get("encoder")),
        schema=_schema(path, content.get("schema"), kind),
        greyscale=content.get("greyscale", False),
        test_time_dropout=None if dropout == "checkpoint" else dropout,
        class_names=_class_names(path, content.get("class_names"), kind),
        value_name=content.get("value_name"),
        trust_checkpoint=content.get("trust_checkpoint", False),
    )


def _check_name(path: str, name: str) -> None:
    if not all(c.isalnum() or c in "-_." for c in name) or not name[0].isalnum() or len(name.encode()) > 100:
        raise UserError(
            f"{path}: name {name!r} may hold letters, digits, '-', '_' and '.' only, "
            "100 bytes at most, and starts with a letter or a digit"
        )


def _beside(path: str, file: str) -> str:
    """A path of a YAML file, relative to its folder; hub names and remote paths stay as they are."""
    file = file.replace("hf-hub:", HUB, 1) if file.startswith("hf-hub:") else file  # timm's newer way
    return file if file.startswith(HUB) else beside(absolute(path), file)


def _encoder(path: str, encoder: str | None) -> str | None:
    """A timm architecture's name, or the path of an encoder's checkpoint."""
    if encoder is None:
        return None
    is_file = "/" in encoder or encoder.endswith((".ckpt", ".pt", ".pth", ".bin", ".safetensors"))
    return _beside(path, encoder) if is_file else encoder


def _view(path: str, content: dict[str, Any]) -> dict[str, Any]:
    from beam_zoo.images import views  # imports torchvision, which takes seconds

    view = content["view"]
    if not isinstance(view, str | dict):
        raise UserError(
            f"{path}: view must be a name or a mapping, not {view!r}{did_you_mean(str(view), views.NAMES)}"
        )
    try:
        return views.view_settings(view, content.get("greyscale", False))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _schema(path: str, given: Any, kind: str) -> dict[str, Any] | None:
    if given is None:
        return None
    if kind not in ("tree", "encoder"):
        raise UserError(f"{path}: a {kind} has no schema: remove it")
    try:
        if isinstance(given, str) and given.endswith((".yaml", ".yml")):
            content = load_yaml(_beside(path, given))
            keys = ("question_answer_pairs", "dependencies")
            for key in content:
                if key not in keys:
                    raise UserError(f"schema: no key {key!r}{did_you_mean(key, keys)}")
            made = schemas.make_schema(*(content.get(key) for key in keys))
        elif isinstance(given, str):
            made = schemas.named_schema(given)
        else:
            raise UserError("schema must be a name in zoobot.shared.schemas or a YAML file")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return schema_json(made)


def schema_json(schema: Any) -> dict[str, Any]:
    """A zoobot Schema as plain values."""
    pairs = {question: list(answers) for question, answers in schema.question_answer_pairs.items()}
    return {
        "question_answer_pairs": pairs,
        "dependencies": {question: schema.dependencies.get(question) for question in pairs},
    }


def _class_names(path: str, names: Any, kind: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if kind != "classifier":
        raise UserError(f"{path}: class_names are for a FinetuneableZoobotClassifier")
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        raise UserError(f"{path}: class_names must be a list of names (quote yes, no and numbers)")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: class_names has a name twice")
    return tuple(names)
