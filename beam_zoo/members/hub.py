"""Checkpoints and architectures of the Hugging Face hub, fetched at planning and pinned to a commit."""

import glob
import json
import os
import re
from typing import Any

from beam_zoo.errors import UserError, one_line
from beam_zoo.members.member import HUB

TIMEOUT = 10.0
"""Seconds without an answer after which the hub counts as unreachable."""


def checkpoint_names(zoobot_class: str) -> tuple[str, ...]:
    """File names under which the hub may hold a checkpoint of this class, best first."""
    if zoobot_class == "ZoobotEncoder":
        return ("model.safetensors", "pytorch_model.bin")
    return (f"{zoobot_class}.ckpt", "model.ckpt")


def is_hub_name(name: str) -> bool:
    """Whether this names a hub repository, in zoobot's way or in timm's newer one."""
    return name.startswith((HUB, "hf-hub:"))


def fetch(name: str, wanted: tuple[str, ...]) -> tuple[str, str]:
    """One file of a hub repository, through the hub client's cache.

    With HF_HUB_OFFLINE=1 the hub is not asked, and the file must be in that cache.

    Args:
        name: `hf_hub:owner/name`, or `hf_hub:owner/name@revision` for a branch, tag or commit.
        wanted: file names, best first.

    Returns:
        The local path, and the commit that it is of.

    Raises:
        UserError: the hub cannot be reached, or has no such repository or file.
    """
    import huggingface_hub
    from huggingface_hub import errors

    repository, _, revision = name.partition(":")[2].partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"{name} is not a hub name: write {HUB}owner/name")
    try:
        if huggingface_hub.is_offline_mode():
            return _cached(name, repository, revision, wanted)
        info = huggingface_hub.HfApi().model_info(repository, revision=revision or None, timeout=TIMEOUT)
        files = [sibling.rfilename for sibling in info.siblings or []]
        chosen = next((file for file in wanted if file in files), None)
        if chosen is None:
            has = ", ".join(files[:8]) or "no files"
            raise UserError(f"{name} has no {' or '.join(wanted)} on the hub (it has {has})")
        assert info.sha is not None
        path = huggingface_hub.try_to_load_from_cache(repository, chosen, revision=info.sha)
        if not isinstance(path, str):
            # The download retries for minutes if the hub does not answer: one request before it does not.
            url = huggingface_hub.hf_hub_url(repository, chosen, revision=info.sha)
            huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT)
            path = huggingface_hub.hf_hub_download(repository, chosen, revision=info.sha)
    except UserError:
        raise
    except errors.RevisionNotFoundError:
        raise UserError(f"{name}: the hub's repository has no revision {revision!r}") from None
    except errors.GatedRepoError:
        raise UserError(f"{name}: its owner must grant you access on the hub first") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{name}: the hub has no such repository, or it is private and you are not logged in"
        ) from None
    except errors.HFValidationError:
        raise UserError(f"{name} is not a hub name: write {HUB}owner/name") from None
    except Exception as error:
        raise UserError(
            f"cannot fetch {name} from the hub: {one_line(error, 200) or type(error).__name__}; check the "
            "network, or give a local checkpoint (and the encoder's architecture)"
        ) from None
    return path, info.sha


def _cached(name: str, repository: str, revision: str, wanted: tuple[str, ...]) -> tuple[str, str]:
    """A file of the hub client's cache: of the revision asked for, else of the only cached one."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    for file in wanted:
        path = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None)
        found = [path] if isinstance(path, str) else []
        if not found and not revision:
            found = glob.glob(os.path.join(constants.HF_HUB_CACHE, folder, "snapshots", "*", file))
        if len(found) > 1:
            raise UserError(
                f"HF_HUB_OFFLINE is set, and the cache holds {len(found)} revisions of {name}: choose one, "
                f"{HUB}{repository}@{os.path.basename(os.path.dirname(min(found)))} for example"
            )
        if found:
            return found[0], os.path.basename(os.path.dirname(found[0]))
    raise UserError(
        f"HF_HUB_OFFLINE is set, and the hub client's cache has no {' or '.join(wanted)} of {name}"
    )


def architecture(name: str) -> tuple[str, dict[str, Any]]:
    """The timm architecture that a hub repository's config.json names, and its arguments.

    Raises:
        UserError: it cannot be fetched or names none.
    """
    path, _ = fetch(name, ("config.json",))
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        made, kwargs = config["architecture"], dict(config.get("model_args") or {})
        # timm takes these two from a pretrained configuration where no argument says otherwise.
        pretrained = config.get("pretrained_cfg", config)
        if pretrained.get("global_pool") is not None:
            kwargs.setdefault("global_pool", pretrained["global_pool"])
        if pretrained.get("fixed_input_size") and pretrained.get("input_size"):
            kwargs.setdefault("img_size", list(pretrained["input_size"][-2:]))
        if not isinstance(made, str):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{name}: its config.json names no timm architecture") from None
    return made, kwargs
