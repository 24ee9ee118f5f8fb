"""Load any Zoobot class safely: nothing in a checkpoint is executed unless its YAML says to trust it."""

import contextlib
import hashlib
import io
import os
from typing import Any

import torch
from torch import nn

from beam_zoo.errors import UserError, one_line

Checkpoint = dict[str, Any]


def read_file(path: str) -> bytes:
    """All bytes of a local or remote file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if "://" in path:
            from apache_beam.io.filesystems import FileSystems

            with FileSystems.open(path) as remote:
                return remote.read()
        with open(path, "rb") as local:
            return local.read()
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"cannot read the checkpoint {path}: {reason}") from None


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


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
        text = one_line(error, 100_000)
        if "Unsupported global" in text or "unsupported" in text.lower() or "Unsupported operand" in text:
            wanted = text.split("GLOBAL ")[-1].split(" ")[0] if "GLOBAL " in text else "code"
            raise UserError(
                f"{path} would run code when loaded ({one_line(wanted, 80)}): refused; "
                "set trust_checkpoint: true in its YAML only if you know its author"
            ) from None
        raise UserError(f"{path} is not a torch checkpoint: {one_line(error, 200)}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a Lightning checkpoint or a state dict"
        )
    if "state_dict" not in content:
        content = {"state_dict": content}
    weights = content["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise UserError(f"{path} has no state dict of tensors")
    # A compiled module's parameters carry an extra name; the plain module has the same weights.
    weights = {key.replace("_orig_mod.", ""): value for key, value in weights.items()}
    return {"state_dict": weights, "hyper_parameters": dict(content.get("hyper_parameters") or {})}


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
        zoobot_class: one of `beam_zoo.members.KINDS`.
        checkpoint: what `parse` returned.
        architecture: timm architecture of the encoder; a ZoobotTree names its own (None).
        architecture_kwargs: arguments of timm.create_model beyond those.
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
        # zoobot's constructors print.
        with contextlib.redirect_stdout(io.StringIO()):
            if zoobot_class == "ZoobotTree":
                # Dropout at test time is drawn by us, per galaxy and pass: see beam_zoo.inference.
                settings.update(test_time_dropout=False, compile_encoder=False)
                model: nn.Module = ZoobotTree(**_accepted(ZoobotTree, settings))
            else:
                assert architecture is not None
                timm_kwargs = {**(settings.get("timm_kwargs") or {}), **architecture_kwargs}
                encoder = _encoder(architecture, timm_kwargs, greyscale)
                if zoobot_class == "ZoobotEncoder":
                    model = ZoobotEncoder(encoder)
                    weights = _encoder_weights(weights, encoder)
                else:
                    for name in ("name", "zoobot_checkpoint_loc", "encoder", "greyscale"):
                        settings.pop(name, None)
                    settings["timm_kwargs"] = {}
                    model = getattr(finetune, zoobot_class)(encoder=encoder, **settings)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} does not make a {zoobot_class}: {one_line(error, 300)}") from None
    _load(model, weights, path, zoobot_class)
    return model.eval().requires_grad_(False)


def _accepted(cls: type, settings: dict[str, Any]) -> dict[str, Any]:
    import inspect

    return {k: v for k, v in settings.items() if k in inspect.signature(cls).parameters}


def _encoder(architecture: str, timm_kwargs: dict[str, Any], greyscale: bool) -> nn.Module:
    import timm

    channels = {"in_chans": 1 if greyscale else 3}
    kwargs = {**timm_kwargs, "num_classes": 0, **channels}
    try:
        return timm.create_model(architecture, pretrained=False, **kwargs)
    except Exception as error:
        raise UserError(f"encoder: timm cannot make {architecture!r}: {one_line(error, 200)}") from None


def _encoder_weights(weights: dict[str, torch.Tensor], encoder: nn.Module) -> dict[str, torch.Tensor]:
    """State dict of a ZoobotEncoder, from a Lightning checkpoint or from a timm model's own file."""
    if any(key.startswith("encoder.") for key in weights):
        # A ZoobotTree's or a finetuned model's checkpoint serves too: its head is not needed.
        return {k: v for k, v in weights.items() if k.startswith("encoder.")}
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
            detail = (
                f" ({tuple(weights[example].shape)}, not {tuple(own[example].shape)})"
                if keys is shapes
                else ""
            )
            raise UserError(
                f"{path} does not fit {zoobot_class}: it {kind} {len(keys)} of {len(own)} weights, "
                f"first {example}{detail}; check zoobot_class, encoder and greyscale"
            ).with_traceback(None)
    device = next(model.parameters()).device
    # On the meta device, where planning checks shapes only, there is nothing to copy.
    if device.type != "meta":
        model.load_state_dict(weights, strict=True)


def is_local(path: str) -> bool:
    """Whether a checkpoint's path is a file of this machine's filesystems."""
    return "://" not in path and os.path.isfile(path)
