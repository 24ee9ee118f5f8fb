"""A run from gs:// to gs:// is the local run: the same bytes, whoever was killed on the way."""

import collections
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from beam_zoo.plan import plan_file
from beam_zoo.samples import parts
from beam_zoo.storage import files, gcs
from beam_zoo.storage.stamps import stamp
from pipelines import audit, export, finish, probe
from tests import checkpoints, galaxies

pytestmark = pytest.mark.slow

OPTIONS = ["--passes", 2, "--snippet_size", 4, "--batch_size", 3, "--carry", "ra", "dec"]
SAME = ("friendly/", "advanced/", "failures/", "samples/", "representations/")


def contents(folder: Path) -> dict[str, bytes]:
    """Tables and parts of a local output."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.parquet")}
    return {name: data for name, data in found.items() if name.startswith(SAME)}


def objects(bucket, folder: str = "out") -> dict[str, bytes]:
    """Tables and parts of an output in a bucket."""
    return {name: data for name, data in bucket.content(folder).items() if name.startswith(SAME)}


def test_a_run_from_and_to_a_bucket(predict, bucket, few, sky, trees, capfd):
    """All files of a run; checkpoints are local and staged. No folder of images is listed."""
    local = predict(few, trees, *OPTIONS)
    assert local.code == 0, local.err
    output = bucket.path("out")
    run = predict(sky, trees, *OPTIONS, output=output)
    assert run.code == 0, run.err
    assert objects(bucket) == contents(local.output)
    manifest = files.read_json(f"{output}/manifest.json")
    ours = json.loads((local.output / "manifest.json").read_text())
    for name in (
        "rows_in",
        "rows_predicted",
        "rows_failed",
        "fingerprint",
        "tables_fingerprint",
        "tables",
        "parts",
    ):
        assert manifest[name] == ours[name]
    plan = plan_file.read(output)
    assert all(member.path.startswith("_plan/members/") for member in plan.members)
    for member in plan.members:
        assert files.sha256(files.read_bytes(f"{output}/{member.path}")) == member.sha256
    assert not [prefix for prefix in bucket.listings() if prefix.startswith("sky")]
    assert audit.main([output]) == 0, capfd.readouterr()
    assert "23 rows of the plan = 23 predicted + 0 failed" in capfd.readouterr().out


def test_what_is_stored_is_not_predicted_again(predict, bucket, few, sky, trees, capfd):
    """Also without the checkpoints, which are staged, and after the tables and some parts were lost."""
    output = bucket.path("out")
    assert predict(sky, trees, *OPTIONS, output=output).code == 0
    before = objects(bucket)
    stamps = {name: stamp(f"{output}/{name}") for name in before if "samples" in name}
    lost = ["samples/part-0000002.parquet", "friendly/part-000000.parquet", "manifest.json"]
    files.remove(*(f"{output}/{name}" for name in lost))
    shutil.copy(trees[0].with_suffix(".ckpt"), trees[0].with_suffix(".away"))
    trees[0].with_suffix(".ckpt").unlink()
    try:
        run = predict(sky, trees, *OPTIONS, output=output)
    finally:
        shutil.move(trees[0].with_suffix(".away"), trees[0].with_suffix(".ckpt"))
    assert run.code == 0, run.err
    assert objects(bucket) == before
    changed = [name for name, was in stamps.items() if stamp(f"{output}/{name}") != was]
    assert changed == [lost[0]]
    assert files.read_json(f"{output}/manifest.json")["rows_reused"] == 19


def test_staged_checkpoints_are_verified(predict, bucket, sky, trees):
    output = bucket.path("out")
    assert predict(sky, trees, *OPTIONS, "--snippets", "0:1", output=output).code == 0
    (name, _) = sorted(n for n in bucket.content("out") if n.startswith("_plan/members/"))
    gcs.write(f"{output}/{name}", b"something else", replace=True)
    run = predict(sky, trees, *OPTIONS, output=output)
    assert run.code == 2 and "is not the checkpoint any more" in run.err.splitlines()[-1]


def test_snippets_finish_and_export(predict, bucket, few, sky, trees, tmp_path, capfd):
    local = predict(few, trees, *OPTIONS)
    output = bucket.path("out")
    for some in ("0:2", "2:5"):
        assert predict(sky, trees, *OPTIONS, "--snippets", some, output=output).code == 0
    assert finish.main([output]) == 1
    assert "--snippets 5:6" in capfd.readouterr().out
    assert predict(sky, trees, *OPTIONS, "--snippets", "5:6", output=output).code == 0
    assert finish.main([f"{output}/"]) == 0
    assert objects(bucket) == contents(local.output)
    assert export.main([output, "--hdf5", str(tmp_path / "remote.hdf5")]) == 0
    assert export.main([str(local.output), "--hdf5", str(tmp_path / "local.hdf5")]) == 0
    import h5py
    import numpy as np

    with h5py.File(tmp_path / "remote.hdf5") as a, h5py.File(tmp_path / "local.hdf5") as b:
        assert sorted(a) == sorted(b)
        assert all(np.array_equal(a[name][()], b[name][()]) for name in a)


def test_represent(represent, bucket, few, sky, trees):
    options = ["--snippet_size", 6, "--carry", "ra"]
    local = represent(few, trees, *options)
    run = represent(sky, trees, *options, output=bucket.path("out"))
    assert (local.code, run.code) == (0, 0), run.err
    assert objects(bucket) == contents(local.output)


def test_missing_and_broken_images(predict, bucket, few, sky, trees):
    """A missing object may come; it is then tried again, and only it."""
    files.remove(bucket.path("sky/images/0003.jpg"))
    good = files.read_bytes(bucket.path("sky/images/0005.jpg"))
    gcs.write(bucket.path("sky/images/0005.jpg"), good[:500], replace=True)
    output = bucket.path("out")
    run = predict(sky, trees, *OPTIONS, "--max_failure_fraction", 0.5, output=output)
    assert run.code == 0, run.err
    failures = _table(bucket, "failures").set_index("id_str")
    assert failures["may_pass"].to_dict() == {"gal 0003": True, "gal 0005": False}
    assert "no such object" in failures["error"]["gal 0003"]
    gcs.write(bucket.path("sky/images/0003.jpg"), (few.parent / "images/0003.jpg").read_bytes(), replace=True)
    before = len(bucket.requests())
    run = predict(sky, trees, *OPTIONS, "--max_failure_fraction", 0.5, output=output)
    assert run.code == 0, run.err
    assert list(_table(bucket, "failures")["id_str"]) == ["gal 0005"]
    read = {
        path.rsplit("%2F", 1)[-1].rsplit("/", 1)[-1]
        for _, path, _, _ in bucket.requests()[before:]
        if ".jpg" in path
    }
    assert "0003.jpg" in read
    assert parts.stored_parts(plan_file.read(output), output)[0][-1].name == "part-0000000_1.parquet"


def test_overwrite_and_refusals(predict, bucket, few, sky, trees):
    output = bucket.path("out")
    assert predict(sky, trees, *OPTIONS, output=output).code == 0
    gcs.write(f"{output}/notes.txt", b"mine", replace=True)
    run = predict(sky, trees, *OPTIONS, "--seed", 1, output=output)
    assert run.code == 2 and "other settings: seed" in run.err.splitlines()[-1]
    run = predict(sky, trees, *OPTIONS, "--seed", 1, "--overwrite", output=output)
    assert run.code == 0, run.err
    local = predict(few, trees, *OPTIONS, "--seed", 1)
    assert objects(bucket) == contents(local.output)
    assert files.read_bytes(f"{output}/notes.txt") == b"mine"
    run = predict(sky, trees, *OPTIONS, output=bucket.path("sky"))
    assert run.code == 2 and "not an output of this program" in run.err.splitlines()[-1]
    run = predict(sky, trees, *OPTIONS, output="gs://no-such-bucket-here/out")
    assert run.code == 2 and "no such bucket" in run.err.splitlines()[-1]
    assert len(run.err.splitlines()) == 1


def test_catalogues_in_buckets(predict, bucket, few, sky, trees):
    """Parquet, a folder, a glob: the same plan. Folders in the folder, with the images, are not listed."""
    rows = pd.read_csv(few, dtype=str)
    for number, some in enumerate((rows[:10], rows[10:])):
        name = f"part-{number}.parquet"
        some.to_parquet(few.parent / name)
        gcs.write(bucket.path("sky", name), (few.parent / name).read_bytes(), replace=True)
        (few.parent / name).unlink()
    prints = set()
    for number, location in enumerate(
        (sky, bucket.path("sky/part-*.parquet"), bucket.path("*/part-?.parquet"))
    ):
        output = bucket.path(f"out-{number}")
        run = predict(location, trees, "--snippets", "0:1", "--image_root", bucket.path("sky"), output=output)
        assert run.code == 0, run.err
        prints.add(plan_file.read(output).fingerprint)
    assert len(prints) == 1
    assert not [prefix for prefix in bucket.listings() if prefix.startswith("sky/images")]
    run = predict(bucket.path("sky"), trees, output=bucket.path("out-4"))
    assert run.code == 2 and "both Parquet and CSV" in run.err
    run = predict(bucket.path("sky/none.csv"), trees, output=bucket.path("out-4"))
    assert run.code == 2 and "there is no catalogue gs://" in run.err


def test_members_and_configs_in_buckets(predict, bucket, few, sky, trees):
    """A member's YAML beside its checkpoint, both in the bucket."""
    bucket.upload(trees[0].parent, "members")
    output = bucket.path("out")
    run = predict(sky, [bucket.path("members", tree.name) for tree in trees], *OPTIONS, output=output)
    assert run.code == 0, run.err
    assert objects(bucket) == contents(predict(few, trees, *OPTIONS).output)


SNIPPETS = 60


@pytest.mark.slow
def test_kills(bucket, tmp_path):
    """Killed again and again, from planning to the tables, it gives the bytes of an undisturbed local run."""
    galaxies.simulated(tmp_path / "sky", 2 * SNIPPETS, size=64)
    checkpoint = checkpoints.tree(tmp_path / "m.ckpt")
    member = checkpoints.member(tmp_path / "m.yaml", checkpoint, view={"base": "default", "output_size": 64})
    bucket.upload(tmp_path / "sky", "sky")

    def command(catalogue: str, output: str) -> list[str]:
        words = [sys.executable, "-m", "pipelines.predict", "--catalogue", catalogue, "--models", str(member)]
        return [*words, "--output", output, "--snippet_size", "2", "--passes", "3"]

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command(str(tmp_path / "sky/catalogue.csv"), str(tmp_path / "local")), check=True, **quiet)
    output, stored, kills = bucket.path("out"), 0, 0
    argv = command(bucket.path("sky/catalogue.csv"), output)
    while True:
        process = subprocess.Popen(argv, start_new_session=True, **quiet)
        wanted = stored + SNIPPETS // 3
        while process.poll() is None and len(files.names(f"{output}/samples")) < wanted:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills, stored = kills + 1, len(files.names(f"{output}/samples"))
    assert process.returncode == 0 and kills >= 2
    assert objects(bucket) == contents(tmp_path / "local")
    refused = [query for method, _, query, status in bucket.requests() if method == "POST" and status == 412]
    assert len(refused) <= kills  # of all parts only those in flight at a kill may have been written twice


def _table(bucket, name: str) -> pd.DataFrame:
    tables = [
        pd.read_parquet(io.BytesIO(data))
        for n, data in sorted(bucket.content("out").items())
        if n.startswith(name)
    ]
    return pd.concat(tables)


def test_requests_are_few(predict, bucket, sky, trees):
    """One for the image of a galaxy, besides those of the planning, and five for a snippet."""
    assert predict(sky, trees, *OPTIONS, output=bucket.path("out")).code == 0
    found = bucket.requests()
    images = collections.Counter(path for method, path, _, _ in found if ".jpg" in path)
    probed = probe.PROBES
    assert len(images) == 23 and sum(images.values()) == 23 + probed
    others = [request for request in found if ".jpg" not in request[1]]
    of_snippets = [path for _, path, _, _ in others if "samples%2F" in path or "_plan%2Frows" in path]
    assert len(of_snippets) <= 4 * 6 + probed, len(of_snippets)
    assert len(others) - len(of_snippets) <= 100
    assert {status for _, path, _, status in found if "catalogue" not in path} <= {200, 404}


def test_relative_paths_with_dots(predict, bucket, few, sky, trees):
    """To a file system they are folders; the same rows, and the same bytes, from a bucket."""
    rows = pd.read_csv(few, dtype=str)
    rows["file_loc"] = [f"./images/../images/{Path(location).name}" for location in rows["file_loc"]]
    rows.to_csv(few.parent / "dots.csv", index=False)
    gcs.write(bucket.path("sky/dots.csv"), (few.parent / "dots.csv").read_bytes(), replace=True)
    local = predict(few.parent / "dots.csv", trees, *OPTIONS)
    (few.parent / "dots.csv").unlink()
    assert local.code == 0, local.err
    run = predict(bucket.path("sky/dots.csv"), trees, *OPTIONS, output=bucket.path("out"))
    assert run.code == 0, run.err
    assert objects(bucket) == contents(local.output)


def test_odd_names(predict, bucket, few, trees):
    """Spaces, letters of other scripts, and what means something in a URL or a glob."""
    folder = "odd dir#é"
    bucket.upload(few.parent, f"{folder}/sky?")
    name = f"{folder}/sky?/cat [1]%.csv"
    gcs.write(bucket.path(name), few.read_bytes(), replace=True)
    run = predict(bucket.path(name), trees, *OPTIONS, output=bucket.path("out put/ü"))
    assert run.code == 0, run.err
    assert objects(bucket, "out put/ü") == contents(predict(few, trees, *OPTIONS).output)


def test_outputs_that_cannot_be(predict, bucket, few, sky, trees):
    for output, said in {
        sky: "is an object, not a folder",
        "gs://": "does not have the form gs://bucket/name",
        "gs:/bucket/out": "write gs://bucket/out",
        "gs://Not_a_bucket/out": "does not have the form",
    }.items():
        run = predict(few, trees, output=output)
        assert run.code == 2 and said in run.err.splitlines()[-1], run.err
        assert len(run.err.splitlines()) == 1


def test_another_job_plans_at_the_same_time(predict, bucket, few, sky, trees, monkeypatch):
    """A job that finds another plan, just before it publishes its own, ends; the other's files stay."""
    from pipelines import prepare

    output = bucket.path("out")
    assert predict(sky, trees, *OPTIONS[:4], output=output).code == 0
    real, others = prepare.publish, []

    def late(prepared, *, overwrite):
        if not others:
            others.append(True)
            other = predict(sky, trees, *OPTIONS[:4], *change, "--overwrite", output=output)
            assert other.code == 0, other.err
        real(prepared, overwrite=overwrite)

    monkeypatch.setattr("pipelines.prepare.publish", late)
    change = ["--seed", 2]
    run = predict(sky, trees, *OPTIONS[:4], "--carry", "ra", output=output)
    assert run.code == 2 and "another job has just planned something else" in run.err.splitlines()[-1]
    assert plan_file.read(output).seed == 2
    fresh = bucket.path("fresh")

    def first(prepared, *, overwrite):
        if not others:
            others.append(True)
            assert predict(sky, trees, *OPTIONS[:4], "--carry", "dec", output=fresh).code == 0
        real(prepared, overwrite=overwrite)

    others.clear()
    monkeypatch.setattr("pipelines.prepare.publish", first)
    run = predict(sky, trees, *OPTIONS[:4], "--carry", "ra", output=fresh)
    assert run.code == 2 and "carry other columns" in run.err.splitlines()[-1]
    assert plan_file.read(fresh).carried == ("dec",)
