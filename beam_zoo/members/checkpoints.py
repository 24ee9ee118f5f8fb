"""Loads checkpoints of any Zoobot class; code in them is not executed, unless the YAML file trusts them."""

import contextlib
import inspect
import io
import re
from typing import Any

import torch
from torch import nn

from beam_zoo.errors import UserError, one_line

Checkpoint = dict[str, Any]


def parse(data: bytes, path: str, *, trust: bool) -> Checkpoint:
    """A checkpoint file's content: `state_dict` and `hyper_parameters`.

    Args:
        data: the file's bytes.
        path: its path, for the error line and to tell safetensors from torch files.
        trust: allow anything that pickle can build, which may run code of the file's author.

    Raises:
        UserError: not a checkpoint, or one that needs to be trusted.
    """
    from zoobot.shared.schemas import Answer, Question, Schema

    try:
        if path.endswith(".safetensors"):
            import safetensors.torch

            content: Any = safetensors.torch.load(data)
        else:
            # The three schema classes are all that zoobot itself pickles besides tensors and plain values.
            with torch.serialization.safe_globals([Schema, Question, Answer]):
                content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=not trust)
    except Exception as error:
        raise UserError(_refusal(error, data, path)) from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a Lightning checkpoint or a state dict"
        )
    if "state_dict" not in content:
        content = {"state_dict": content}
    weights, settings = content["state_dict"], content.get("hyper_parameters") or {}
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()
    ):
        raise UserError(f"{path} has no state dict of tensors")
    if not isinstance(settings, dict):
        raise UserError(f"{path} has hyper_parameters that are no mapping")
    # A compiled module's parameters carry an extra name; the plain module has the same weights.
    weights = {key.replace("_orig_mod.", ""): value for key, value in weights.items()}
    return {"state_dict": weights, "hyper_parameters": dict(settings)}


def _refusal(error: Exception, data: bytes, path: str) -> str:
    """Why a file was not loaded, on one line."""
    text = one_line(error, 100_000)
    found = re.search(r"GLOBAL ([\w.]+)", text)
    is_pickle = data.startswith(b"\x80")
    if found or (is_pickle and "nsupported" in text):
        what = found[1] if found else "a pickle"
        return (
            f"{path} is refused: it holds {one_line(what, 80)}, and building that may run code; "
            "set trust_checkpoint: true in the member's YAML only if you know who made it"
        )
    if not data:
        why = "it is empty"
    elif data.startswith(b"version https://git-lfs"):
        why = "it is a git-lfs pointer, and the file itself was never pulled"
    elif "PytorchStreamReader" in text:
        why = "it is cut short or damaged"
    elif not is_pickle and "nsupported operand" in text:
        why = f"it starts with {data[:12]!r}"
    else:
        why = one_line(error, 150)
    return f"{path} is not a checkpoint: {why}"


def saved_class(settings: dict[str, Any]) -> str | None:
    """The zoobot class that saved these hyper-parameters, where they tell."""
    signs = {
        "schema": "FinetuneableZoobotTree",
        "num_classes": "FinetuneableZoobotClassifier",
        "unit_interval": "FinetuneableZoobotRegressor",
        "question_answer_pairs": "ZoobotTree",
    }
    return next((name for sign, name in signs.items() if sign in settings), None)


def build(
    zoobot_class: str,
    checkpoint: Checkpoint,
    architecture: str | None,
    architecture_kwargs: dict[str, Any],
    *,
    greyscale: bool,
    path: str,
) -> nn.Module:
    """zoobot's own model with the checkpoint's weights, in evaluation mode, on the current default device.

    Args:
        zoobot_class: one of `beam_zoo.members.member.KINDS`.
        checkpoint: what `parse` returned.
        architecture: timm architecture of the encoder, or None for the one that a ZoobotTree names itself.
        architecture_kwargs: its arguments, where the checkpoint's own timm_kwargs do not say otherwise.
        greyscale: one input channel instead of three.
        path: of the checkpoint, for error lines.

    Raises:
        UserError: the weights do not fit the model.
    """
    from zoobot.pytorch.estimators.define_model import ZoobotTree
    from zoobot.pytorch.training import finetune
    from zoobot.pytorch.training.representations import ZoobotEncoder

    settings = dict(checkpoint["hyper_parameters"])
    weights = checkpoint["state_dict"]
    try:
        timm_kwargs = {**architecture_kwargs, **(settings.get("timm_kwargs") or {})}
        for name in ("pretrained", "checkpoint_path", "num_classes", "in_chans"):
            # The weights are in the checkpoint: timm must not download or read others.
            timm_kwargs.pop(name, None)
        # zoobot's constructors print.
        with contextlib.redirect_stdout(io.StringIO()):
            if zoobot_class == "ZoobotTree":
                if architecture is not None:
                    settings["architecture_name"] = architecture
                # beam_zoo.inference draws the dropout at test time, per galaxy and pass.
                settings.update(test_time_dropout=False, compile_encoder=False, timm_kwargs=timm_kwargs)
                model: nn.Module = ZoobotTree(**_accepted(settings, ZoobotTree))
            else:
                assert architecture is not None
                encoder = _encoder(architecture, timm_kwargs, greyscale)
                if zoobot_class == "ZoobotEncoder":
                    model = ZoobotEncoder(encoder)
                    weights = _encoder_weights(weights, encoder)
                else:
                    for name in ("name", "zoobot_checkpoint_loc", "encoder", "greyscale", "timm_kwargs"):
                        settings.pop(name, None)
                    cls = getattr(finetune, zoobot_class)
                    settings = _accepted(settings, cls, finetune.FinetuneableZoobotAbstract)
                    model = cls(encoder=encoder, timm_kwargs={}, **settings)
    except UserError:
        raise
    except Exception as error:
        why = one_line(error, 300) or type(error).__name__
        raise UserError(f"{path} does not make a {zoobot_class}: {why}") from None
    _load(model, weights, path, zoobot_class)
    return model.eval().requires_grad_(False)


def _accepted(settings: dict[str, Any], *classes: type) -> dict[str, Any]:
    """The settings that these constructors know: older versions of zoobot saved others too."""
    known = {name for cls in classes for name in inspect.signature(cls).parameters}
    return {name: value for name, value in settings.items() if name in known}


def _encoder(architecture: str, timm_kwargs: dict[str, Any], greyscale: bool) -> nn.Module:
    import timm

    channels = 1 if greyscale else 3
    try:
        return timm.create_model(
            architecture, pretrained=False, num_classes=0, in_chans=channels, **timm_kwargs
        )
    except Exception as error:
        raise UserError(f"encoder: timm cannot make {architecture!r}: {one_line(error, 200)}") from None


def _encoder_weights(weights: dict[str, torch.Tensor], encoder: nn.Module) -> dict[str, torch.Tensor]:
    """State dict of a ZoobotEncoder, from a Lightning checkpoint or from a timm model's own file."""
    if any(key.startswith("encoder.") for key in weights):
        # A ZoobotTree's or a finetuned model's checkpoint serves too: its head is not needed.
        weights = {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}
    classifier = (getattr(encoder, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    kept = {k: v for k, v in weights.items() if k.rsplit(".", 1)[0] not in heads}
    return {f"encoder.{key}": value for key, value in kept.items()}


def _load(model: nn.Module, weights: dict[str, torch.Tensor], path: str, zoobot_class: str) -> None:
    own = model.state_dict()
    missing = sorted(set(own) - set(weights))
    extra = sorted(set(weights) - set(own))
    shapes = sorted(k for k in set(own) & set(weights) if own[k].shape != weights[k].shape)
    for kind, keys in (("lacks", missing), ("has no place for", extra), ("has another shape for", shapes)):
        if keys:
            example = keys[0]
            if keys is shapes and (grey := _takes_grey(weights[example], own[example])) is not None:
                kind = "greyscale" if grey else "colour"
                raise UserError(
                    f"{path} takes {kind} images: set greyscale: {str(grey).lower()} in the member's YAML"
                )
            detail = (
                f" ({tuple(weights[example].shape)}, not {tuple(own[example].shape)})"
                if keys is shapes
                else ""
            )
            raise UserError(
                f"{path} does not fit {zoobot_class}: it {kind} {len(keys)} of {len(own)} weights, "
                f"first {example}{detail}; check zoobot_class and encoder"
            )
    device = next(model.parameters()).device
    # On the meta device, where planning checks shapes only, there is nothing to copy.
    if device.type != "meta":
        model.load_state_dict(weights, strict=True)


def _takes_grey(given: torch.Tensor, own: torch.Tensor) -> bool | None:
    """Whether a first layer was made for one channel; None where more than the channels differ."""
    same = given.ndim == own.ndim == 4 and given.shape[:1] + given.shape[2:] == own.shape[:1] + own.shape[2:]
    if not same or {given.shape[1], own.shape[1]} != {1, 3}:
        return None
    return given.shape[1] == 1
