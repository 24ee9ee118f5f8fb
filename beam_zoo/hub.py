"""Checkpoints and architectures of the Hugging Face hub, asked once, at planning, and pinned."""

import json
from typing import Any

from beam_zoo.errors import UserError, one_line
from beam_zoo.members import HUB


def checkpoint_names(zoobot_class: str) -> tuple[str, ...]:
    """File names under which the hub may hold a checkpoint of this class, best first."""
    if zoobot_class == "ZoobotEncoder":
        return ("model.safetensors", "pytorch_model.bin")
    return (f"{zoobot_class}.ckpt", "model.ckpt")


def fetch(name: str, wanted: tuple[str, ...]) -> tuple[str, str]:
    """Download one file of a hub repository, of its newest revision, into the hub client's cache.

    Args:
        name: `hf_hub:owner/name`, or `hf_hub:owner/name@revision` for a branch, tag or commit.
        wanted: file names, best first.

    Returns:
        The local path, and the commit that it is of.

    Raises:
        UserError: the hub cannot be reached, or has no such repository or file.
    """
    import huggingface_hub

    repository, _, revision = name.removeprefix(HUB).partition("@")
    try:
        info = huggingface_hub.HfApi().model_info(repository, revision=revision or None, timeout=30)
        files = [sibling.rfilename for sibling in info.siblings or []]
        chosen = next((file for file in wanted if file in files), None)
        if chosen is None:
            has = ", ".join(files[:8]) or "no files"
            raise UserError(f"{name} has no {' or '.join(wanted)} on the hub (it has {has})")
        assert info.sha is not None
        path = huggingface_hub.hf_hub_download(repository, chosen, revision=info.sha)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"cannot fetch {name} from the hub: {one_line(error, 200)}; check the name and the network, "
            "or give a local checkpoint (and the encoder's architecture)"
        ) from None
    return path, info.sha


def architecture(name: str) -> tuple[str, dict[str, Any]]:
    """The timm architecture that a hub repository's config.json names, and its arguments.

    Raises:
        UserError: it cannot be fetched or names none.
    """
    path, _ = fetch(name, ("config.json",))
    with open(path, encoding="utf-8") as file:
        try:
            config = json.load(file)
            return config["architecture"], dict(config.get("model_args") or {})
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{name}: its config.json names no timm architecture") from None
