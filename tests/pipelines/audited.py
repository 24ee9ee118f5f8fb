"""Outputs to audit, and ways to damage them: each also so that all checksums fit again."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from beam_zoo.samples import parts
from pipelines import audit, predict, represent
from tests import checkpoints, galaxies

SNIPPET, TABLE_ROWS = 4, 8
"""Two snippets a table part, where the tests set `beam_zoo.plan.plan.TABLE_ROWS` so."""
ENCODER = {"zoobot_class": "ZoobotEncoder", "encoder": "test_resnet"}


def run(main: Callable, catalogue: Path, models: list[Path], output: Path, *options: object) -> None:
    """Predict or represent, with failures allowed."""
    argv = ["--catalogue", catalogue, "--models", *models, "--output", output, "--snippet_size", SNIPPET]
    assert main([str(word) for word in [*argv, "--max_failure_fraction", 0.9, *options]]) == 0


def trees(folder: Path) -> Path:
    """22 galaxies, 2 trees, 2 passes, 2 carried columns.

    0003 was missing and came later (an added part), 0005 and 0012 are missing still, 0017 is broken for good.
    """
    catalogue = sky(folder, 22)
    images = folder / "sky" / "images"
    for name in ("0003", "0005", "0012"):
        (images / f"{name}.jpg").rename(folder / f"{name}.jpg")
    (images / "0017.jpg").write_bytes((images / "0017.jpg").read_bytes()[:500])
    members = []
    for seed, name in enumerate("ab"):
        path = checkpoints.tree(folder / f"{name}.ckpt", seed=seed)
        members.append(checkpoints.member(folder / f"{name}.yaml", path, schema=checkpoints.TREE_SCHEMA))
    options = ["--passes", 2, "--carry", "note", "ra"]
    run(predict.main, catalogue, members, folder / "out", *options)
    (folder / "0003.jpg").rename(images / "0003.jpg")
    run(predict.main, catalogue, members, folder / "out", *options)
    # The same run with another seed: its parts are good ones, and not of this output.
    run(predict.main, catalogue, members, folder / "other", *options, "--seed", 1)
    return folder / "out"


def failed_whole(folder: Path, main: Callable, *members: Path, back: tuple[str, ...] = ()) -> Path:
    """12 galaxies; images of the second snippet are missing, some come back, and the same command runs."""
    catalogue = sky(folder, 12)
    images = folder / "sky" / "images"
    for number in range(SNIPPET, 2 * SNIPPET):
        (images / f"{number:04d}.jpg").rename(folder / f"{number:04d}.jpg")
    options = ["--carry", "ra", "--max_failure_fraction", 1]
    run(main, catalogue, list(members), folder / "out", *options)
    for name in back:
        (folder / f"{name}.jpg").rename(images / f"{name}.jpg")
        run(main, catalogue, list(members), folder / "out", *options)
    return folder / "out"


def finetuned(folder: Path, cls: str, passes: int, **settings: object) -> Path:
    """10 galaxies through one fine-tuned member."""
    given = {"num_classes": 3} if cls.endswith("Classifier") else {}
    path = checkpoints.finetuned(cls, folder / "m.ckpt", **given)
    member = checkpoints.member(folder / "m.yaml", path, zoobot_class=cls, encoder="test_resnet", **settings)
    run(predict.main, sky(folder, 10), [member], folder / "out", "--passes", passes)
    return folder / "out"


def representations(folder: Path) -> Path:
    """10 galaxies, two encoders, a carried column; 0003 was missing and came later, 0006 is missing still."""
    catalogue = sky(folder, 10)
    images = folder / "sky" / "images"
    for name in ("0003", "0006"):
        (images / f"{name}.jpg").rename(folder / f"{name}.jpg")
    members = []
    for seed, name in enumerate("mn"):
        path = checkpoints.zoobot_encoder(folder / f"{name}.ckpt", seed=seed)
        members.append(checkpoints.member(folder / f"{name}.yaml", path, **ENCODER))
    run(represent.main, catalogue, members, folder / "out", "--carry", "ra")
    (folder / "0003.jpg").rename(images / "0003.jpg")
    run(represent.main, catalogue, members, folder / "out", "--carry", "ra")
    return folder / "out"


def sky(folder: Path, count: int) -> Path:
    """Simulated galaxies; `ra` is NaN for one, and `note` is null for one."""
    rows = galaxies.simulated(folder / "sky", count, size=48)
    rows["note"] = [f"note {i}" for i in range(count)]
    rows.loc[1, "note"], rows.loc[2, "ra"] = None, np.nan
    table = pa.table({name: pa.array(rows[name].to_numpy(), from_pandas=name == "note") for name in rows})
    pq.write_table(table, folder / "sky" / "catalogue.parquet")
    return folder / "sky" / "catalogue.parquet"


def audited(output: Path, capfd, *options: str) -> tuple[int, list[str]]:
    """The audit's exit code and its lines; it must not stop for any damage."""
    capfd.readouterr()
    code = audit.main([str(output), *options])
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    assert "cannot be checked to the end" not in captured.out
    return code, captured.out.splitlines()


def copy(output: Path, to: Path) -> Path:
    """A copy to damage, as an output that was moved."""
    return Path(shutil.copytree(output, to / "copy"))


# --- damage


def write(path: Path, table: pa.Table) -> None:
    """A table's file, as the program writes it."""
    path.write_bytes(parts.to_parquet(table, compression="snappy"))


def change(output: Path, name: str, edit: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    """Change a file's rows; schema, metadata and page checksums stay good."""
    table = pq.read_table(output / name)
    frame = table.to_pandas(ignore_metadata=True, types_mapper=lambda t: pd.ArrowDtype(t))
    edited = edit(frame)
    changed = pa.Table.from_pandas(frame if edited is None else edited, preserve_index=False)
    write(output / name, changed.cast(table.schema).replace_schema_metadata(table.schema.metadata))


def cell(output: Path, name: str, row: int, column: str, value: object) -> None:
    """Change one value; a function is given the old one."""
    table = pq.read_table(output / name)
    values = table.column(column).to_pylist()
    values[row] = value(values[row]) if callable(value) else value
    where = table.schema.get_field_index(column)
    field = table.schema.field(column)
    write(output / name, table.set_column(where, field, pa.array(values, field.type)))


def failures_of(output: Path, name: str, edit: Callable[[list], list]) -> None:
    """Change the failures in a part's metadata, with a checksum that fits."""
    metadata_of(output, name, lambda content: content.update(failures=edit(content["failures"])))


def metadata_of(output: Path, name: str, edit: Callable[[dict], None]) -> None:
    """Change a part's metadata, with a checksum that fits."""
    table = pq.read_table(output / name)
    content = json.loads(table.schema.metadata[b"beam_zoo"])
    edit(content)
    text = json.dumps(content).encode()
    digest = hashlib.sha256(text).hexdigest()
    write(output / name, table.replace_schema_metadata({"beam_zoo": text, "beam_zoo_sha256": digest}))


def fit(output: Path) -> None:
    """Make checksums, sizes and row numbers in the manifest and in the reports those of the files."""
    for path in [output / "manifest.json", *sorted((output / "_tables").glob("*.json"))]:
        content = json.loads(path.read_text())
        tables = content["tables"] if path.name == "manifest.json" else list(content["files"].values())
        for entry in [*tables, *content["parts"]]:
            file = output / entry["name"]
            if not file.exists():
                continue
            data = file.read_bytes()
            entry["sha256"] = hashlib.sha256(data).hexdigest()
            if "bytes" in entry:
                entry["bytes"] = len(data)
            try:
                entry["rows"] = pq.read_metadata(file).num_rows
            except Exception:
                continue  # too damaged to have rows
        path.write_text(json.dumps(content))


def manifest(output: Path, edit: Callable[[dict], None]) -> None:
    """Change the manifest."""
    content = json.loads((output / "manifest.json").read_text())
    edit(content)
    (output / "manifest.json").write_text(json.dumps(content))


def listed(content: dict, key: str, name: str) -> dict:
    """A file's entry in the manifest's `tables` or `parts`."""
    return next(entry for entry in content[key] if entry["name"] == name)
