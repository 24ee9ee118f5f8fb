"""The exported file is the predecessor's: zoobot's own functions read it, and come to our tables."""

import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from zoobot.shared import load_predictions, schemas

from beam_zoo.plan import plan as plans
from pipelines import export as command
from pipelines import hdf5
from tests import checkpoints, oracle
from tests.pipelines.unions import aggregate

SCHEMA = getattr(schemas, checkpoints.TREE_SCHEMA)
OPTIONS = ["--passes", 3, "--snippet_size", 5, "--max_failure_fraction", 0.5]


@pytest.fixture(scope="module")
def broken(few, tmp_path_factory):
    """A catalogue with a galaxy that fails, and ids that are not ASCII."""
    folder = tmp_path_factory.mktemp("broken")
    rows = pd.read_csv(few)
    rows["id_str"] = [f"Größe {name}" for name in rows["id_str"]]
    rows["file_loc"] = [str(few.parent / location) for location in rows["file_loc"]]
    rows.loc[4, "file_loc"] = str(folder / "nowhere.jpg")
    rows.to_csv(folder / "catalogue.csv", index=False)
    rows.sample(frac=1, random_state=1).to_csv(folder / "shuffled.csv", index=False)
    return folder / "catalogue.csv"


@pytest.fixture(scope="module")
def whole(runs, broken, trees):
    return runs(broken, trees, *OPTIONS)


def export(output, file, *options):
    """Runs `python -m pipelines.export` in this process; its code and stderr."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = command.main([str(word) for word in (output, "--hdf5", file, *options)])
    return code, err.getvalue()


def test_zoobot_reads_it(whole, tmp_path):
    path = tmp_path / "predictions.hdf5"
    code, err = export(whole, path)
    assert code == 0, err
    assert "22 of 23 galaxies written, 1 failed" in err
    table, predictions, labels = load_predictions.load_hdf5s([str(path)])
    samples = pd.read_parquet(whole / "samples")
    assert list(table["id_str"]) == list(pd.read_parquet(whole / "friendly")["id_str"])
    assert list(labels) == SCHEMA.label_cols
    assert predictions.dtype == np.float32
    np.testing.assert_array_equal(predictions, oracle.samples_array(samples, SCHEMA.label_cols))
    with h5py.File(path) as file:
        assert set(file) == {"predictions", "id_str", "label_cols", "members"}
        assert list(file["members"].asstr()) == ["a", "b"]
        assert h5py.check_string_dtype(file["id_str"].dtype).encoding == "utf-8"
        assert file["predictions"].shape == (22, 34, 2, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.hdf5"]


def test_zoobots_tables_of_it_are_ours(whole, tmp_path):
    path = tmp_path / "predictions.hdf5"
    assert export(whole, path)[0] == 0
    theirs = load_predictions.prediction_hdf5_to_summary_parquet(
        str(path), str(tmp_path / "summary.parquet"), SCHEMA
    )
    for name, expected in zip(("friendly", "advanced"), theirs, strict=True):
        ours = pd.read_parquet(whole / name)
        assert list(ours["id_str"]) == list(expected["id_str"])
        for column in ours.columns.drop("id_str"):
            np.testing.assert_allclose(ours[column], expected[column], atol=1e-6, rtol=0, err_msg=column)


def test_an_aggregate_is_read_through_its_sources(runs, broken, trees, whole, tmp_path):
    """The second run in another order: the same file as of the one run with both members."""
    a = runs(broken, trees[0], *OPTIONS)
    b = runs(broken.with_name("shuffled.csv"), trees[1], "--passes", 3, "--snippet_size", 4, *OPTIONS[-2:])
    both = aggregate(tmp_path / "both", a, b, options=OPTIONS[-2:]).output
    assert export(both, tmp_path / "both.hdf5")[0] == 0
    assert export(whole, tmp_path / "whole.hdf5")[0] == 0
    with h5py.File(tmp_path / "both.hdf5") as one, h5py.File(tmp_path / "whole.hdf5") as other:
        for name in ("id_str", "label_cols", "members"):
            assert list(one[name].asstr()) == list(other[name].asstr())
        np.testing.assert_allclose(one["predictions"][:], other["predictions"][:], rtol=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both", "both.hdf5", "whole.hdf5"]

    late = runs(broken, trees[0], "--passes", 1, "--first_pass", 3, *OPTIONS[-2:])
    uneven = aggregate(tmp_path / "uneven", a, b, late, options=OPTIONS[-2:]).output
    code, err = export(uneven, tmp_path / "uneven.hdf5")
    assert code == 2 and "different numbers of passes (a 4, b 3)" in err
    short = runs(broken, trees[1], *OPTIONS, "--limit", 9)
    kept = aggregate(tmp_path / "kept", a, short, options=("--incomplete", "keep")).output
    code, err = export(kept, tmp_path / "kept.hdf5")
    assert code == 2 and "lacks samples that others have" in err
    dropped = aggregate(tmp_path / "dropped", a, short, options=("--incomplete", "drop")).output
    assert export(dropped, tmp_path / "dropped.hdf5")[0] == 0
    with h5py.File(tmp_path / "dropped.hdf5") as file:
        assert file["predictions"].shape == (8, 34, 2, 3)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_source_that_is_gone_or_another(runs, few, trees, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(runs(few, trees[0], *OPTIONS), source)
    both = aggregate(tmp_path / "both", source).output
    assert export(both, tmp_path / "one.hdf5")[0] == 0
    other = runs(few, trees[0], *OPTIONS, "--seed", 4)
    shutil.rmtree(source)
    assert "there is no output" in export(both, tmp_path / "x.hdf5")[1]
    shutil.copytree(other, source)
    code, err = export(both, tmp_path / "x.hdf5")
    assert code == 2 and "holds another run" in err


def test_other_kinds(runs, few, tmp_path):
    saved = checkpoints.finetuned("FinetuneableZoobotClassifier", tmp_path / "c.ckpt", num_classes=3)
    model = checkpoints.member(
        tmp_path / "c.yaml",
        saved,
        zoobot_class="FinetuneableZoobotClassifier",
        encoder="test_resnet",
        class_names=["x", "y", "z"],
    )
    assert export(runs(few, model, "--passes", 2), tmp_path / "c.hdf5")[0] == 0
    _, predictions, labels = load_predictions.load_hdf5s([str(tmp_path / "c.hdf5")])
    assert predictions.shape == (23, 3, 1, 2) and list(labels) == ["x", "y", "z"]
    np.testing.assert_allclose(predictions.sum(1), 1, rtol=1e-5)


def test_a_catalogue_of_failures_only(runs, broken, trees, tmp_path):
    rows = pd.read_csv(broken)
    rows["file_loc"] = "nowhere.jpg"
    rows.to_csv(tmp_path / "none.csv", index=False)
    output = runs(tmp_path / "none.csv", trees[0], "--passes", 1, "--max_failure_fraction", 1)
    assert export(output, tmp_path / "none.hdf5")[0] == 0
    with h5py.File(tmp_path / "none.hdf5") as file:
        assert file["predictions"].shape == (0, 34, 1, 1) and len(file["id_str"]) == 0


def test_mistakes(whole, represent, few, trees, tmp_path, monkeypatch):
    path = tmp_path / "predictions.hdf5"
    path.write_bytes(b"another file")
    code, err = export(whole, path)
    assert code == 2 and "--overwrite" in err
    assert path.read_bytes() == b"another file"
    assert export(whole, path, "--overwrite")[0] == 0
    assert h5py.is_hdf5(path)
    before = path.read_bytes()
    monkeypatch.setattr(hdf5, "_predicted", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(whole, path, "--overwrite")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["predictions.hdf5"]
    for words, said in (
        ((whole, tmp_path / "no" / "x.hdf5"), "there is no folder"),
        ((whole, tmp_path), "is a folder"),
        ((tmp_path, tmp_path / "x.hdf5"), "not a complete output"),
        ((whole.with_name(f"{whole.name}x"), tmp_path / "x.hdf5"), "did you mean"),
        ((whole, tmp_path / "x.hdf5", "--overwrit"), "did you mean '--overwrite'?"),
        ((whole, tmp_path / "x.hdf5", "--runner", "DirectRunner"), "export has no option --runner"),
    ):
        code, err = export(*words)
        assert code == 2 and said in err, err
        assert len(err.splitlines()) == 1
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    (copy / "samples" / "part-0000001.parquet").unlink()
    code, err = export(copy, tmp_path / "x.hdf5")
    assert code == 2 and "--snippets 1:2" in err
    features = represent(few, trees[0], "--limit", 3).output
    code, err = export(features, tmp_path / "x.hdf5")
    assert code == 2 and "an output of represent" in err
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("parts", [0, 1, 2])
def test_a_disk_or_quota_that_fills_up(whole, tmp_path, monkeypatch, parts, code):
    """After so many table parts."""
    allocate, done = os.posix_fallocate, []

    def some(*arguments):
        done.append(arguments)
        if len(done) > parts:
            raise OSError(code, os.strerror(code))
        return allocate(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", some)
    code, err = export(whole, tmp_path / "x.hdf5")
    assert code == 4 and "no space left for" in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_full_disks(whole, tmp_path):
    """Of several sizes, in another process: HDF5 that could not write crashes when the process ends."""
    sizes = [4, 8, 12, 32, 400, 1600]
    folders = [tmp_path / f"{size}k" for size in sizes]
    mounted = []
    try:
        for size, folder in zip(sizes, folders, strict=True):
            folder.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
            if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
                assert "CI" not in os.environ, (
                    "full disks are tested on a tmpfs, which root may have to mount"
                )
                pytest.skip("needs small filesystems: root must be allowed to mount a tmpfs")
            mounted.append(folder)
        # With the small table parts that the output was made with.
        program = f"import sys; from beam_zoo.plan import plan; plan.TABLE_ROWS = {plans.TABLE_ROWS}\n"
        program += "from pipelines import export\nfor path in sys.argv[2:]:\n"
        program += "    print(export.main([sys.argv[1], '--hdf5', path]))"
        files = [str(folder / "x.hdf5") for folder in folders]
        done = subprocess.run(
            [sys.executable, "-c", program, str(whole), *files], capture_output=True, text=True
        )
        left = [path for folder in folders for path in folder.iterdir()]
    finally:
        for folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode == 0 and done.stdout.split() == ["4"] * len(sizes), done
    lines = done.stderr.splitlines()
    assert len(lines) == len(sizes) and all("no space left for" in line for line in lines), lines
    assert not left


def test_allocated_space_is_enough(whole, tmp_path, monkeypatch):
    """HDF5 writes nothing beyond it; and none of it is left in the file."""
    allocate, sizes, ends = os.posix_fallocate, [], []

    def recorded(handle, start, size):
        sizes.append(start)
        ends.append(start + size)
        allocate(handle, start, size)

    monkeypatch.setattr(os, "posix_fallocate", recorded)
    assert export(whole, tmp_path / "x.hdf5")[0] == 0
    sizes.append((tmp_path / "x.hdf5").stat().st_size)
    assert len(ends) == len(list((whole / "friendly").iterdir()))
    assert all(size <= end for size, end in zip(sizes[1:], ends, strict=True))
    assert sizes[-1] < ends[-1] - hdf5.SPACE_FOR_METADATA // 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_between_table_parts(whole, tmp_path, monkeypatch, number):
    allocate, done = os.posix_fallocate, []

    def interrupted(*arguments):
        done.append(arguments)
        if len(done) == 2:
            signal.raise_signal(number)
        return allocate(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", interrupted)
    assert export(whole, tmp_path / "x.hdf5")[0] == 128 + number
    assert not list(tmp_path.iterdir())


def test_interrupted_while_the_file_is_open(whole, tmp_path, monkeypatch):
    resize = h5py.Dataset.resize

    def interrupted(*arguments):
        resize(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(h5py.Dataset, "resize", interrupted)
    assert export(whole, tmp_path / "x.hdf5")[0] == 130
    assert not list(tmp_path.iterdir())
