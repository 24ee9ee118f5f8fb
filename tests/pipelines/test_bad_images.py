"""Bad images and rows in a whole run: the others are predicted as if they were not there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.beam_zoo.bad_images import BAD, ODD

SAMPLES = ["--passes", 2, "--batch_size", 8, "--snippet_size", 20]
TABLES = ("friendly", "advanced", "samples", "failures")


def _mixed(folder: Path, good: Path) -> pd.DataFrame:
    """Every bad and odd image among 23 good ones, in a shuffled order; a row without a location too."""
    shutil.copytree(good.parent / "images", folder / "images")
    rows = [(f"good {row.id_str}", row.file_loc) for row in pd.read_csv(good, dtype=str).itertuples()]
    for files, kind in ((BAD, "bad"), (ODD, "odd")):
        (folder / kind).mkdir()
        for name, file in files.items():
            file.make(folder / kind / name)
            rows.append((f"{kind} {name[:40]}", str(folder / kind / name)))
    rows.append(("bad no location", ""))
    order = np.random.default_rng(1).permutation(len(rows))
    return pd.DataFrame([rows[i] for i in order], columns=["id_str", "file_loc"])


def _samples(result) -> pd.DataFrame:
    return result.table("samples").set_index(["id_str", "member", "pass"]).sort_index()


def test_bad_images_among_good_ones(predict, few: Path, trees: list[Path], tmp_path: Path) -> None:
    """Each bad row is one failures row; every other has the samples that it has without them."""
    rows = _mixed(tmp_path, few)
    rows.to_parquet(tmp_path / "mixed.parquet")
    rows[~rows.id_str.str.startswith("bad")].to_parquet(tmp_path / "clean.parquet")
    mixed = predict(
        tmp_path / "mixed.parquet", trees, *SAMPLES, "--max_failure_fraction", 1, "--allow_outside"
    )
    clean = predict(tmp_path / "clean.parquet", trees, *SAMPLES)
    assert (mixed.code, clean.code) == (0, 0), mixed.err + clean.err

    bad = len(BAD) + 1
    manifest = json.loads((mixed.output / "manifest.json").read_text())
    assert manifest["rows_in"] == len(rows)
    assert manifest["rows_failed"] == bad
    assert manifest["rows_predicted"] == len(rows) - bad
    assert clean.table("failures").empty

    failures = mixed.table("failures").set_index("id_str")
    assert list(failures.index) == [i for i in rows.id_str if i.startswith("bad")]
    assert (failures.stage == "image").all()
    assert failures.loc["bad no location", "may_pass"] == np.False_
    for name, file in BAD.items():
        failure = failures.loc[f"bad {name[:40]}"]
        assert file.reason in failure.error and "\n" not in failure.error
        assert failure.may_pass == file.may_pass

    expected, found = _samples(clean), _samples(mixed)
    pd.testing.assert_index_equal(found.index, expected.index)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for name in ("friendly", "advanced"):
        assert mixed.table(name).id_str.tolist() == [i for i in rows.id_str if not i.startswith("bad")]


def test_too_many_failures(predict, few: Path, trees: list[Path], tmp_path: Path) -> None:
    """More than the fraction is exit code 3, with all tables; exactly the fraction is not more."""
    shutil.copytree(few.parent / "images", tmp_path / "images")
    rows = pd.read_csv(few, dtype=str).head(10)
    rows.to_csv(tmp_path / "c.csv", index=False)
    (tmp_path / rows.file_loc[3]).write_bytes(b"")
    result = predict(tmp_path / "c.csv", trees[:1], *SAMPLES)
    assert result.code == 3
    assert "error: 1 of 10 galaxies failed, more than --max_failure_fraction 0.05" in result.err
    assert len(result.table("friendly")) == len(result.table("advanced")) == 9
    assert result.table("failures").id_str.tolist() == [rows.id_str[3]]
    again = predict(
        tmp_path / "c.csv", trees[:1], *SAMPLES, "--max_failure_fraction", 0.1, output=result.output
    )
    assert again.code == 0, again.err


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_no_image_can_be_opened(predict, few: Path, trees: list[Path], tmp_path: Path, suffix: str) -> None:
    """An unmounted disk is refused before anything is written; if the user insists, tables are empty."""
    rows = pd.read_csv(few, dtype={"id_str": str}).rename(columns={"ra": "right ascension"})
    rows.loc[2, "file_loc"] = None
    path = tmp_path / f"c.{suffix}"
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    refused = predict(path, trees[:1], *SAMPLES, "--image_root", tmp_path)
    assert refused.code == 2
    last = refused.err.splitlines()[-1]
    assert last.startswith("error: none of 16 images") and "--image_root" in last
    assert str(tmp_path / rows.file_loc[0]) in last
    assert not refused.output.exists()
    assert predict(path, trees[:1], *SAMPLES, "--image_root", tmp_path, "--dry_run").code == 2

    options = ["--max_failure_fraction", 1, "--carry", "right ascension"]
    result = predict(path, trees[:1], *SAMPLES, "--image_root", tmp_path, *options)
    assert result.code == 0, result.err
    assert "warning: none of 16 images" in result.err
    manifest = json.loads((result.output / "manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_predicted"], manifest["rows_failed"]) == (23, 0, 23)
    tables = {name: result.table(name) for name in TABLES}
    assert [len(tables[name]) for name in TABLES] == [0, 0, 0, 23]
    whole = predict(few, trees[:1], *SAMPLES, "--carry", "ra")
    for name in TABLES:
        full = whole.table(name).rename(columns={"ra": "right ascension"})
        assert tables[name].columns.tolist() == full.columns.tolist()
        if name != "failures":
            assert tables[name].dtypes.tolist() == full.dtypes.tolist()
    assert tables["failures"].may_pass.sum() == 22


def test_the_probe_looks_at_the_whole_catalogue(
    predict, few: Path, trees: list[Path], tmp_path: Path
) -> None:
    """The first 16 images are missing and the last is there: that is no unmounted disk."""
    rows = pd.concat([pd.read_csv(few, dtype=str)] * 5, ignore_index=True)
    rows["id_str"] = [f"g{i}" for i in range(len(rows))]
    rows.loc[: len(rows) - 2, "file_loc"] = "nowhere.jpg"
    rows.to_csv(tmp_path / "c.csv", index=False)
    options = ["--image_root", few.parent, "--dry_run"]
    assert predict(tmp_path / "c.csv", trees[:1], *options).code == 0
    assert predict(tmp_path / "c.csv", trees[:1], *options, "--limit", len(rows) - 1).code == 2


def test_represent_with_bad_images(represent, few: Path, trees: list[Path], tmp_path: Path) -> None:
    """The same road for features: one failures row, and nobody else's features change."""
    shutil.copytree(few.parent / "images", tmp_path / "images")
    shutil.copy(few, tmp_path / "c.csv")
    rows = pd.read_csv(few, dtype=str)
    (tmp_path / rows.file_loc[7]).unlink()
    broken = represent(tmp_path / "c.csv", trees[:1], "--carry", "ra")
    whole = represent(few, trees[:1], "--carry", "ra")
    assert (broken.code, whole.code) == (0, 0), broken.err + whole.err
    found, expected = (r.table(f"representations/{trees[0].stem}") for r in (broken, whole))
    expected = expected.drop(index=7).reset_index(drop=True)
    assert found[["id_str", "ra"]].equals(expected[["id_str", "ra"]])
    np.testing.assert_allclose(np.stack(found.feature), np.stack(expected.feature), rtol=1e-4, atol=1e-6)
    failure = broken.table("failures").iloc[0]
    assert (failure.id_str, failure.stage, failure.may_pass) == (rows.id_str[7], "image", True)
