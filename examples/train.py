"""Trains the demo's members: two small Zoobot models, on simulated galaxies.

`python -m examples.train --output examples/members` simulates the training galaxies, writes them as
424-pixel JPEGs in memory, looks at them through galaxy-datasets' minimal view, the one that
prediction uses, and fits Zoobot's own `ZoobotTree` with its own Dirichlet loss to the votes.
"""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from examples.simulate import simulate_galaxies
from examples.votes import DEPENDENCIES, LABEL_COLS, QUESTION_ANSWER_PAIRS

if TYPE_CHECKING:
    import torch
    from zoobot.pytorch.estimators.define_model import ZoobotTree

logger = logging.getLogger(__name__)

OUTPUT_SIZE = 96
"""Side of an image after the view, pixels; the members' YAML files state the same number."""

TRAINING_SEED = 1000
"""Survey of the training galaxies; a survey with any other seed is unseen."""


@dataclass(frozen=True)
class MemberSpec:
    """What tells one member of the ensemble from another."""

    name: str
    architecture_name: str
    """Name of the encoder in timm."""
    learning_rate: float
    """Peak of the one-cycle schedule."""
    seed: int
    """Seed of the initial weights, the dropout and the order of the galaxies."""


MEMBERS = (
    MemberSpec("demo_a", "test_resnet", 3e-3, 11),
    MemberSpec("demo_b", "test_byobnet", 3e-3, 22),
)


def demo_view(output_size: int = OUTPUT_SIZE) -> Any:
    """Galaxy-datasets' minimal view: PIL image to float32 tensor (3, size, size) in 0 to 1."""
    from galaxy_datasets.transforms import get_galaxy_transform, minimal_view_config

    config = minimal_view_config()
    config.output_size = output_size
    return get_galaxy_transform(config)


def viewed(image: Image.Image, view: Any) -> NDArray[np.uint8]:
    """One image through the view, uint8, shape (3, size, size).

    The view resamples 8-bit pixels and only then divides by 255, so uint8 loses nothing.
    """
    return np.asarray((view(image) * 255.0).round().byte().numpy(), dtype=np.uint8)


def training_arrays(
    count: int, output_size: int = OUTPUT_SIZE, seed: int = TRAINING_SEED
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Images through the view, and votes, of `count` simulated galaxies.

    Returns:
        Images, uint8, shape (count, 3, output_size, output_size); votes, int16, shape
        (count, answers) in the order of `LABEL_COLS`.
    """
    view = demo_view(output_size)
    images = np.empty((count, 3, output_size, output_size), dtype=np.uint8)
    votes = np.empty((count, len(LABEL_COLS)), dtype=np.int16)
    for index, simulated in enumerate(simulate_galaxies(count, seed)):
        images[index] = viewed(simulated.image(), view)
        votes[index] = [simulated.votes[label] for label in LABEL_COLS]
        if (index + 1) % 1000 == 0:
            logger.info("simulated %d of %d galaxies", index + 1, count)
    return images, votes


def build_model(spec: MemberSpec) -> "ZoobotTree":
    """An untrained member, its weights drawn from torch's global generator."""
    from zoobot.pytorch.estimators.define_model import ZoobotTree

    return ZoobotTree(
        output_dim=len(LABEL_COLS),
        question_answer_pairs=QUESTION_ANSWER_PAIRS,
        dependencies=DEPENDENCIES,
        architecture_name=spec.architecture_name,
        channels=3,
        test_time_dropout=True,
        dropout_rate=0.2,
        learning_rate=spec.learning_rate,
        weight_decay=0.05,
    )


def turned(images: "torch.Tensor") -> "torch.Tensor":
    """Flips each image at random and rotates the batch by a random multiple of 90 degrees.

    None of these resamples a pixel, so a turned galaxy is as sharp as one seen in prediction.

    Args:
        images: shape (batch, 3, size, size).
    """
    import torch

    for axis in (2, 3):
        flip = torch.rand(len(images), 1, 1, 1) < 0.5
        images = torch.where(flip, images.flip(axis), images)
    return images.rot90(int(torch.randint(4, ())), dims=(2, 3))


def train_member(
    spec: MemberSpec,
    images: NDArray[np.uint8],
    votes: NDArray[np.int16],
    epochs: int,
    batch_size: int = 64,
) -> "ZoobotTree":
    """Fits one member.

    Args:
        spec: which member.
        images: uint8, shape (galaxies, 3, size, size).
        votes: int16, shape (galaxies, answers).
        epochs: passes over the galaxies.
        batch_size: galaxies a step.

    Returns:
        The trained model, in evaluation mode.
    """
    import torch

    torch.manual_seed(spec.seed)
    torch.use_deterministic_algorithms(True)
    model = build_model(spec)
    model.train()
    optimizer = model.configure_optimizers()
    steps = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=spec.learning_rate, total_steps=epochs * steps, pct_start=0.2
    )
    pixels, counts = torch.from_numpy(images), torch.from_numpy(votes)
    start = time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for step, chosen in enumerate(torch.randperm(len(pixels))[: steps * batch_size].split(batch_size)):
            batch = {"image": turned(pixels[chosen]).float() / 255.0}
            batch.update(zip(LABEL_COLS, counts[chosen].unbind(dim=1), strict=True))
            loss = model.training_step(batch, step)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.monotonic() - start
        logger.info("%s epoch %d loss %.3f (%.0f s)", spec.name, epoch, total / steps, seconds)
    return model.eval()


def save_member(model: "ZoobotTree", path: Path) -> None:
    """Writes a Lightning checkpoint of the weights and hyper-parameters, without an optimiser."""
    import lightning

    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path, weights_only=True)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.train", description="Train the demo's two small Zoobot models."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--galaxies", type=int, default=8000, help="how many (default 8000)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over them (default 20)")
    parser.add_argument(
        "--cache", type=Path, help="an .npz file that keeps the simulated galaxies between runs"
    )
    parser.add_argument("--only", help="train only the member of this name")
    parser.add_argument("--threads", type=int, default=1, help="processor cores (default 1)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    logger.setLevel(logging.INFO)

    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.cache is not None and arguments.cache.exists():
        with np.load(arguments.cache) as cached:
            images, votes = cached["images"], cached["votes"]
        if len(images) != arguments.galaxies:
            parser.error(f"{arguments.cache} holds {len(images)} galaxies")
    else:
        images, votes = training_arrays(arguments.galaxies)
        if arguments.cache is not None:
            np.savez(arguments.cache, images=images, votes=votes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for spec in MEMBERS:
        if arguments.only in (None, spec.name):
            model = train_member(spec, images, votes, arguments.epochs)
            save_member(model, arguments.output / f"{spec.name}.ckpt")


if __name__ == "__main__":
    main()
