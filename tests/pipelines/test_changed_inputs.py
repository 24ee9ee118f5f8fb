"""Between two runs of one command the catalogue, its images or their places change."""

import json
import shutil

import pandas as pd
import pytest

from tests import checkpoints, galaxies

OPTIONS = ["--snippet_size", 4, "--passes", 1]


def test_overwrite_does_not_remove_its_own_catalogue(predict, own_catalogue, trees):
    """The failures table is a natural catalogue: it has id_str and file_loc."""
    (own_catalogue.parent / "images" / "0003.jpg").unlink()
    first = predict(own_catalogue, trees, *OPTIONS, "--max_failure_fraction", 1)
    before = sorted(p for p in first.output.rglob("*") if p.is_file())
    own = first.output / "failures"
    options = ["--image_root", own_catalogue.parent, "--max_failure_fraction", 1, "--overwrite"]
    second = predict(own, trees, *OPTIONS, *options, output=first.output)
    assert second.code == 2
    assert "--overwrite would remove" in second.err and "copy it elsewhere" in second.err
    assert sorted(p for p in first.output.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize("command", ["predict", "represent"])
def test_carried_values_that_changed(command, request, own_catalogue, tmp_path):
    """Tables get the new ones without predicting; representations, which hold them, refuse."""
    run = request.getfixturevalue(command)
    member = checkpoints.member(tmp_path / "m.yaml", checkpoints.tree(tmp_path / "m.ckpt"))
    first = run(own_catalogue, member, *OPTIONS, "--carry", "ra")
    assert first.code == 0, first.err
    rows = pd.read_csv(own_catalogue)
    rows["ra"] = 99.5
    rows.to_csv(own_catalogue, index=False)
    second = run(own_catalogue, member, *OPTIONS, "--carry", "ra", output=first.output)
    if command == "represent":
        assert second.code == 2 and "carried values" in second.err
        return
    assert second.code == 0, second.err
    assert json.loads((second.output / "manifest.json").read_text())["rows_reused"] == 12
    for name in ("friendly", "advanced"):
        assert (second.table(name)["ra"] == 99.5).all()


def test_an_unmounted_disk_on_resume(predict, own_catalogue, trees, tmp_path):
    """Catalogue and images are gone: the stored plan goes on, and finds that no image can be opened."""
    first = predict(own_catalogue, trees, *OPTIONS, "--snippets", "0:1")
    own_catalogue.parent.rename(tmp_path / "unmounted")
    second = predict(own_catalogue, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "can be opened" in second.err and "--image_root" in second.err
    (tmp_path / "unmounted").rename(own_catalogue.parent)
    third = predict(own_catalogue, trees, *OPTIONS, output=first.output)
    assert third.code == 0 and len(third.table("failures")) == 0


def test_the_rest_is_nothing_but_missing_files(predict, own_catalogue, trees):
    """A run that was stopped before its last snippets, without images, ends like one that was not."""
    for number in range(8, 12):
        (own_catalogue.parent / "images" / f"{number:04d}.jpg").unlink()
    options = [*OPTIONS, "--max_failure_fraction", 0.5]
    whole = predict(own_catalogue, trees, *options)
    assert whole.code == 0, whole.err
    first = predict(own_catalogue, trees, *options, "--snippets", "0:2")
    second = predict(own_catalogue, trees, *options, output=first.output)
    assert second.code == 0, second.err
    assert "warning: none of 4 images" in second.err
    pd.testing.assert_frame_equal(second.table("advanced"), whole.table("advanced"))
    pd.testing.assert_frame_equal(second.table("failures"), whole.table("failures"))


def test_other_images_under_another_root(predict, own_catalogue, trees, tmp_path):
    """The same names, other pictures: refused. The same pictures elsewhere: fine."""
    first = predict(own_catalogue, trees, *OPTIONS, "--snippets", "0:1")
    galaxies.simulated(tmp_path / "other", 12, seed=5)
    second = predict(own_catalogue, trees, *OPTIONS, "--image_root", tmp_path / "other", output=first.output)
    assert second.code == 2 and "is not the image that it was" in second.err
    shutil.copytree(own_catalogue.parent, tmp_path / "same")
    third = predict(own_catalogue, trees, *OPTIONS, "--image_root", tmp_path / "same", output=first.output)
    assert third.code == 0, third.err


def test_an_output_inside_the_catalogues_folder(predict, own_catalogue, trees, tmp_path):
    folder = tmp_path / "catalogue"
    folder.mkdir()
    pd.read_csv(own_catalogue).to_parquet(folder / "rows.parquet")
    options = [*OPTIONS, "--image_root", own_catalogue.parent]
    for _ in range(2):
        result = predict(folder, trees, *options, output=folder / "out")
        assert result.code == 0, result.err
    assert json.loads((folder / "out" / "manifest.json").read_text())["rows_reused"] == 12
