"""What people write today to predict a catalogue with several models and passes: one function each way.

Each takes a catalogue (`id_str`, `file_loc`), the checkpoints of ZoobotTree models and a number of passes,
and writes zoobot's own friendly and advanced tables.
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

BATCH = 32


def _view() -> Any:
    from galaxy_datasets.transforms import get_galaxy_transform, minimal_view_config

    return get_galaxy_transform(minimal_view_config())


def _load(checkpoint: str) -> Any:
    from zoobot.pytorch.estimators.define_model import ZoobotTree

    return ZoobotTree.load_from_checkpoint(checkpoint, map_location="cpu").eval()


def _tables(output: Path, catalogue: pd.DataFrame, concentrations: np.ndarray, schema: Any) -> None:
    """zoobot's tables of concentrations of shape (galaxy, answer, model, pass)."""
    from zoobot.shared.load_predictions import concentrations_to_summary_parquet

    ids = catalogue[["id_str"]].reset_index(drop=True)
    concentrations_to_summary_parquet(
        str(output / "tables.parquet"), schema, ids, concentrations, schema.label_cols
    )


def zoobot(catalogue: pd.DataFrame, checkpoints: list[str], passes: int, output: Path) -> None:
    """zoobot's predict_on_catalog, once for every model and pass."""
    from zoobot.pytorch.predictions import predict_on_catalog

    by_model = []
    for checkpoint in checkpoints:
        model = _load(checkpoint)
        # zoobot 2.9's own data module hands a mapping to predict_step, and ZoobotTree's takes the images
        # themselves.
        model.predict_step = functools.partial(_predict_step, model.predict_step)
        by_pass = [
            predict_on_catalog.predict(
                catalogue,
                model,
                str(output / f"{Path(checkpoint).stem}-{number}.csv"),
                model.schema.label_cols,
                _view(),
                datamodule_kwargs={"batch_size": BATCH, "num_workers": 2},
                trainer_kwargs={"accelerator": "cpu", "logger": False, "enable_checkpointing": False},
            )[model.schema.label_cols].to_numpy()
            for number in range(passes)
        ]
        by_model.append(np.stack(by_pass, -1))
    _tables(output, catalogue, np.stack(by_model, 2), model.schema)


def _predict_step(step: Callable[..., Any], batch: dict[str, Any], *rest: Any) -> Any:
    return step(batch["image"], *rest)


class Images:
    """A torch dataset of a catalogue's images."""

    def __init__(self, locations: list[str]) -> None:
        self._locations, self._view = locations, _view()

    def __len__(self) -> int:
        return len(self._locations)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        return self._view(Image.open(self._locations[index]).convert("RGB"))


def loader(catalogue: pd.DataFrame, checkpoints: list[str], passes: int, output: Path) -> None:
    """A torch DataLoader, and a loop over batches, models and passes."""
    import torch

    models = [_load(checkpoint) for checkpoint in checkpoints]
    images = torch.utils.data.DataLoader(Images(list(catalogue["file_loc"])), BATCH, num_workers=2)
    found = []
    with torch.inference_mode():
        for batch in images:
            by_model = [torch.stack([model(batch) for _ in range(passes)], -1) for model in models]
            found.append(torch.stack(by_model, 2).numpy())
    _tables(output, catalogue, np.concatenate(found), models[0].schema)


class Predict:
    """An actor of Ray Data: all models and passes for a batch of images."""

    def __init__(self, checkpoints: list[str], passes: int) -> None:
        import torch

        # Ray gives an actor of one CPU one thread, and with all CPUs it would leave none to read images.
        torch.set_num_threads(os.cpu_count() or 1)
        self._models, self._passes = [_load(checkpoint) for checkpoint in checkpoints], passes

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import torch

        images = torch.from_numpy(np.stack(list(batch.pop("image"))))
        with torch.inference_mode():
            found = [torch.stack([m(images) for _ in range(self._passes)], -1) for m in self._models]
        return {**batch, "concentrations": torch.stack(found, 2).numpy()}


def _read(batch: dict[str, Any]) -> dict[str, Any]:
    images = Images(list(batch["file_loc"]))
    return {**batch, "image": np.stack([images[index].numpy() for index in range(len(images))])}


def ray(catalogue: pd.DataFrame, checkpoints: list[str], passes: int, output: Path) -> None:
    """Ray Data: one map_batches that reads images, one with an actor that predicts."""
    import ray as cluster

    # Workers import this module as the driver did.
    here = {"PYTHONPATH": os.pathsep.join(sys.path)}
    cluster.init(
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": here},
        _node_ip_address="127.0.0.1",
    )
    rows = cluster.data.from_pandas(catalogue.assign(row=np.arange(len(catalogue))))
    done = (
        rows.repartition(max(1, len(catalogue) // BATCH))
        .map_batches(_read, batch_size=BATCH)
        .map_batches(
            Predict, fn_constructor_args=(checkpoints, passes), batch_size=BATCH, concurrency=1, num_cpus=1
        )
        .to_pandas()
        .sort_values("row")
    )
    schema = _load(checkpoints[0]).schema
    _tables(output, done, np.stack(list(done["concentrations"])), schema)
    cluster.shutdown()


WAYS = {"zoobot": zoobot, "loader": loader, "ray": ray}


def main() -> None:
    """`python -m benchmarks.peer_programs WAY CATALOGUE ROWS PASSES OUTPUT CHECKPOINT...`"""
    way, catalogue, rows, passes, output, *checkpoints = sys.argv[1:]
    Path(output).mkdir(parents=True)
    table = pd.read_csv(catalogue, dtype=str).head(int(rows))
    WAYS[way](table, checkpoints, int(passes), Path(output))


if __name__ == "__main__":
    main()
