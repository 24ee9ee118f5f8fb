"""Checkpoints of every Zoobot class, as zoobot itself writes them, with a tiny encoder and random weights."""

from pathlib import Path
from typing import Any

import yaml

ARCHITECTURE = "test_resnet"
TREE_SCHEMA = "decals_dr8_ortho_schema"


def save(model: Any, path: Path) -> Path:
    """Save as Lightning saves, weights only."""
    import lightning

    trainer = lightning.Trainer(
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path, weights_only=True)
    return path


def encoder(seed: int, channels: int = 3) -> Any:
    """A timm encoder with random weights."""
    import timm
    import torch

    torch.manual_seed(seed)
    return timm.create_model(ARCHITECTURE, num_classes=0, in_chans=channels)


def tree(
    path: Path, *, seed: int = 0, schema: str = TREE_SCHEMA, spread: float = 8.0, **settings: Any
) -> Path:
    """A ZoobotTree; its head's weights are spread, so that fractions take all values and masks matter."""
    import torch
    from zoobot.pytorch.estimators.define_model import ZoobotTree
    from zoobot.shared import schemas

    chosen = getattr(schemas, schema)
    torch.manual_seed(seed)
    kwargs = {
        "output_dim": len(chosen.label_cols),
        "question_answer_pairs": chosen.question_answer_pairs,
        "dependencies": chosen.dependencies,
        "architecture_name": ARCHITECTURE,
        "test_time_dropout": True,
        **settings,
    }
    model = ZoobotTree(**kwargs)
    with torch.no_grad():
        model.head[1][0].weight *= spread
    return save(model, path)


def finetuned(cls: str, path: Path, *, seed: int = 0, channels: int = 3, **settings: Any) -> Path:
    """A Finetuneable class around an encoder in memory, which is not saved as a setting."""
    import torch
    from zoobot.pytorch.training import finetune

    made = encoder(seed, channels)
    torch.manual_seed(seed + 1)
    model = getattr(finetune, cls)(encoder=made, greyscale=channels == 1, timm_kwargs={}, **settings)
    return save(model, path)


def zoobot_encoder(path: Path, *, seed: int = 0) -> Path:
    """A ZoobotEncoder."""
    from zoobot.pytorch.training.representations import ZoobotEncoder

    return save(ZoobotEncoder(encoder(seed)), path)


def demo_members(folder: Path) -> list[Path]:
    """`a.yaml` and `b.yaml` in a folder: the demo's members, whose files stay where they are."""
    there, made = Path(__file__).parents[1] / "examples" / "members", []
    for name in "ab":
        content = yaml.safe_load((there / f"demo_{name}.yaml").read_text())
        content |= {key: str(there / content[key]) for key in ("checkpoint", "schema")}
        made.append(folder / f"{name}.yaml")
        made[-1].write_text(yaml.safe_dump(content))
    return made


def member(path: Path, checkpoint: Path | str, **settings: Any) -> Path:
    """A member's YAML file; its name is the file's."""
    content = {
        "name": path.stem,
        "zoobot_class": "ZoobotTree",
        "checkpoint": str(checkpoint),
        "view": {"base": "minimal", "output_size": 64},
        **settings,
    }
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path
