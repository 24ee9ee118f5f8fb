"""The independent computation: zoobot's own classes and functions in a plain loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet


def load_tree(checkpoint: Path, **settings: Any) -> Any:
    """A ZoobotTree as zoobot loads it."""
    from zoobot.pytorch.estimators.define_model import ZoobotTree

    return ZoobotTree.load_from_checkpoint(
        checkpoint, map_location="cpu", weights_only=True, **settings
    ).eval()


def view(**changes: Any) -> Any:
    """galaxy_datasets' own minimal view with changes, or another base."""
    from galaxy_datasets import transforms

    config = getattr(transforms, f"{changes.pop('base', 'minimal')}_view_config")()
    for name, value in changes.items():
        config[name] = value
    return transforms.get_galaxy_transform(config)


def image(path: str | Path) -> Any:
    """The image as galaxy_datasets loads it, in colour."""
    from PIL import Image

    return Image.open(path).convert("RGB")


def predict_loop(model: Any, transform: Any, paths: list[Path]) -> np.ndarray:
    """One galaxy after the other through predict_step: shape (galaxy, output)."""
    import torch

    out = []
    with torch.inference_mode():
        for path in paths:
            batch = transform(image(path))[None]
            out.append(model.predict_step(batch, 0).numpy()[0])
    return np.stack(out)


def paths_of(catalogue: Path) -> list[Path]:
    """The image paths of a catalogue, in its order."""
    return [catalogue.parent / location for location in pd.read_csv(catalogue, dtype=str)["file_loc"]]


def samples_array(samples: pd.DataFrame, outputs: list[str]) -> np.ndarray:
    """The samples table as zoobot's array: (galaxy, answer, member, pass), members in the table's order."""
    ids = samples["id_str"].drop_duplicates()
    members = list(samples["member"].drop_duplicates())
    passes = sorted(samples["pass"].unique())
    indexed = samples.set_index(["id_str", "member", "pass"])[outputs]
    order = pd.MultiIndex.from_product([ids, members, passes])
    flat = indexed.loc[order].to_numpy()
    return flat.reshape(len(ids), len(members), len(passes), -1).transpose(0, 3, 1, 2)


def assert_same_samples(one: pd.DataFrame, other: pd.DataFrame, tolerance: float = 1e-4) -> None:
    """Equal samples of the same galaxies, members and passes, whatever the order of the rows."""
    keys = ["id_str", "member", "pass"]
    a, b = (table.set_index(keys).sort_index() for table in (one, other))
    assert a.index.equals(b.index)
    np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), rtol=tolerance)


def damage(path: Path) -> None:
    """Change a bit of a number in a Parquet file of samples or statistics; not of what nobody reads."""
    column = parquet.read_metadata(path).row_group(0).column(5)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    path.write_bytes(data)
