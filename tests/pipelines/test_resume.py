"""The same command again: stored snippets are kept, retryable failures are tried again."""

import json
import shutil

import pandas as pd
import pytest
from PIL import Image

from beam_zoo.images import decode as image_files
from tests import checkpoints, galaxies, oracle

OPTIONS = ["--snippet_size", 5, "--passes", 2]


def manifest(result):
    return json.loads((result.output / "manifest.json").read_text())


def tables(output):
    """Bytes of every table part."""
    names = ("friendly", "advanced", "failures", "samples")
    return {p.relative_to(output): p.read_bytes() for n in names for p in (output / n).iterdir()}


def test_missing_snippets_only(predict, few, trees, monkeypatch):
    """With two of five parts gone, these two are predicted again, and the tables are the same bytes."""
    first = predict(few, trees, *OPTIONS)
    before = tables(first.output)
    for number in (1, 3):
        (first.output / "samples" / f"part-000000{number}.parquet").unlink()
    kept = (first.output / "samples" / "part-0000002.parquet").stat().st_mtime_ns
    second = predict(few, trees, *OPTIONS, output=first.output)
    assert second.code == 0
    assert tables(second.output) == before
    assert (first.output / "samples" / "part-0000002.parquet").stat().st_mtime_ns == kept
    counts = manifest(second)
    assert (counts["rows_reused"], counts["rows_predicted"], counts["rows_failed"]) == (13, 23, 0)
    third = predict(few, trees, *OPTIONS, output=first.output)
    assert manifest(third)["rows_reused"] == 23
    assert tables(third.output) == before


def test_a_slice_of_snippets_then_the_rest(predict, few, trees):
    whole = predict(few, trees, *OPTIONS)
    sliced = predict(few, trees, *OPTIONS, "--snippets", "1:3")
    assert sliced.code == 0
    assert sorted(p.name for p in (sliced.output / "samples").iterdir()) == [
        "part-0000001.parquet",
        "part-0000002.parquet",
    ]
    assert not (sliced.output / "friendly").exists()
    assert not (sliced.output / "manifest.json").exists()
    rest = predict(few, trees, *OPTIONS, output=sliced.output)
    assert tables(rest.output) == tables(whole.output)
    assert manifest(rest)["rows_reused"] == 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--passes", 3], "passes (2 there, 3 now)"),
        (["--seed", 1], "seed (0 there, 1 now)"),
        (["--first_pass", 2], "first_pass"),
        (["--precision", "bf16"], "precision"),
        (["--snippet_size", 6], "snippet_size"),
        (["--limit", 20], "limit (none there, 20 now)"),
    ],
)
def test_other_settings_are_refused(predict, few, trees, options, said):
    first = predict(few, trees, *OPTIONS)
    before = tables(first.output)
    second = predict(few, trees, *OPTIONS, *options, output=first.output)
    assert second.code == 2
    assert said in second.err
    assert tables(first.output) == before
    fresh = predict(few, trees, *OPTIONS, *options, "--overwrite", output=first.output)
    assert fresh.code == 0
    assert manifest(fresh)["rows_reused"] == 0


def test_other_members_and_catalogues_are_refused(predict, few, trees, tmp_path):
    first = predict(few, trees, *OPTIONS)
    fewer = predict(few, trees[:1], *OPTIONS, output=first.output)
    assert fewer.code == 2 and "members (b is there only)" in fewer.err
    swapped = predict(few, trees[::-1], *OPTIONS, output=first.output)
    assert swapped.code == 2 and "the order of the members" in swapped.err
    other = checkpoints.tree(tmp_path / "a.ckpt", seed=9)
    retrained = checkpoints.member(tmp_path / "a.yaml", other, schema=checkpoints.TREE_SCHEMA)
    changed = predict(few, [retrained, trees[1]], *OPTIONS, output=first.output)
    assert changed.code == 2 and "sha256 of member a" in changed.err
    rows = pd.read_csv(few)
    rows.loc[3, "id_str"] = "renamed"
    rows.to_csv(tmp_path / "other.csv", index=False)
    options = ["--image_root", few.parent]
    renamed = predict(tmp_path / "other.csv", trees, *OPTIONS, *options, output=first.output)
    assert renamed.code == 2 and "catalogue (its ids, image paths or rows)" in renamed.err


def test_what_may_change(predict, few, trees, tmp_path):
    """Batch size, carried columns, paths of all inputs and of the output: nothing is predicted again."""
    first = predict(few, trees, *OPTIONS)
    moved = tmp_path / "moved"
    shutil.copytree(few.parent, moved)
    members = tmp_path / "members"
    shutil.copytree(trees[0].parent, members)
    for path in members.glob("*.yaml"):
        path.write_text(path.read_text().replace(str(trees[0].parent), str(members)))
    output = tmp_path / "elsewhere"
    shutil.move(first.output, output)
    options = [*OPTIONS, "--batch_size", 3, "--carry", "dec", "ra"]
    second = predict(
        moved / "catalogue.csv", [members / path.name for path in trees], *options, output=output
    )
    assert second.code == 0, second.err
    assert manifest(second)["rows_reused"] == 23
    friendly = second.table("friendly")
    assert list(friendly.columns[:3]) == ["id_str", "dec", "ra"]
    expected = pd.read_csv(few, float_precision="round_trip")
    pd.testing.assert_series_equal(friendly["ra"], expected["ra"])


def test_the_catalogue_is_not_needed_any_more(predict, trees, tmp_path):
    galaxies.simulated(tmp_path / "sky", 12)
    catalogue = tmp_path / "sky" / "catalogue.csv"
    first = predict(catalogue, trees, *OPTIONS)
    before = tables(first.output)
    (first.output / "samples" / "part-0000001.parquet").unlink()
    catalogue.unlink()
    second = predict(catalogue, trees, *OPTIONS, output=first.output)
    assert second.code == 0, second.err
    assert "going on with the plan" in second.err
    assert tables(second.output) == before


def test_failures_that_may_pass_are_tried_again(predict, trees, tmp_path, monkeypatch):
    """Two missing files come later, one image is broken for good: only the missing ones are read again."""
    galaxies.simulated(tmp_path / "sky", 12)
    catalogue = tmp_path / "sky" / "catalogue.csv"
    images = tmp_path / "sky" / "images"
    for name in ("0003.jpg", "0007.jpg"):
        (images / name).rename(tmp_path / name)
    good = (images / "0005.jpg").read_bytes()
    (images / "0005.jpg").write_bytes(good[:500])
    options = [*OPTIONS, "--max_failure_fraction", 0.5]
    first = predict(catalogue, trees, *options)
    assert first.code == 0, first.err
    failures = first.table("failures").set_index("id_str")
    assert failures["may_pass"].to_dict() == {"gal 0003": True, "gal 0005": False, "gal 0007": True}

    (tmp_path / "0003.jpg").rename(images / "0003.jpg")
    read = []
    real = image_files.read_bytes
    monkeypatch.setattr(image_files, "read_bytes", lambda path: read.append(path[-8:]) or real(path))
    second = predict(catalogue, trees, *options, output=first.output)
    assert sorted(read) == ["0003.jpg", "0007.jpg"]
    assert list(second.table("failures")["id_str"]) == ["gal 0005", "gal 0007"]
    counts = manifest(second)
    assert (counts["rows_reused"], counts["rows_predicted"], counts["rows_failed"]) == (9, 10, 2)
    assert (second.output / "samples" / "part-0000000_1.parquet").exists()

    (tmp_path / "0007.jpg").rename(images / "0007.jpg")
    third = predict(catalogue, trees, *options, output=first.output)
    assert list(third.table("failures")["id_str"]) == ["gal 0005"]
    (images / "0005.jpg").write_bytes(good)
    whole = predict(catalogue, trees, *options)
    healthy = whole.table("samples")
    oracle.assert_same_samples(third.table("samples"), healthy[healthy["id_str"] != "gal 0005"])
    order = list(third.table("friendly")["id_str"])
    assert order == sorted(order) and len(order) == 11


def test_a_damaged_part_is_not_believed(predict, few, trees):
    first = predict(few, trees, *OPTIONS)
    path = first.output / "samples" / "part-0000002.parquet"
    oracle.damage(path)
    shutil.rmtree(first.output / "_tables")  # so that the tables are built anew
    second = predict(few, trees, *OPTIONS, output=first.output)
    assert second.code == 2
    assert str(path) in second.err and "delete it" in second.err
    path.unlink()
    assert predict(few, trees, *OPTIONS, output=first.output).code == 0


def test_a_part_of_another_run_is_not_believed(predict, few, trees):
    first = predict(few, trees, *OPTIONS)
    other = predict(few, trees, *OPTIONS, "--seed", 3)
    name = "samples/part-0000002.parquet"
    shutil.copy(other.output / name, first.output / name)
    shutil.rmtree(first.output / "_tables")
    second = predict(few, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "another run" in second.err


def test_images_of_another_size_may_come_later(predict, trees, tmp_path):
    """An image that was missing and comes in greyscale and another size is predicted like any other."""
    galaxies.simulated(tmp_path / "sky", 8)
    catalogue = tmp_path / "sky" / "catalogue.csv"
    path = tmp_path / "sky" / "images" / "0002.jpg"
    picture = Image.open(path).convert("L").resize((50, 70))
    path.unlink()
    options = [*OPTIONS, "--max_failure_fraction", 0.5]
    first = predict(catalogue, trees, *options)
    picture.save(path)
    second = predict(catalogue, trees, *options, output=first.output)
    assert len(second.table("failures")) == 0
    assert len(second.table("friendly")) == 8
