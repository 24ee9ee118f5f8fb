"""Ways to lose data, or to get other numbers than one thinks, that users found or would find."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from tests import checkpoints, galaxies

OPTIONS = ["--snippet_size", 4, "--passes", 1]


@pytest.fixture
def sky(tmp_path) -> Path:
    galaxies.simulated(tmp_path / "sky", 12)
    return tmp_path / "sky" / "catalogue.csv"


def test_overwrite_does_not_remove_its_own_catalogue(predict, sky, trees):
    """The failures table is a natural catalogue: it has id_str and file_loc."""
    (sky.parent / "images" / "0003.jpg").unlink()
    first = predict(sky, trees, *OPTIONS, "--max_failure_fraction", 1)
    before = sorted(p for p in first.output.rglob("*") if p.is_file())
    own = first.output / "failures"
    options = ["--image_root", sky.parent, "--max_failure_fraction", 1, "--overwrite"]
    second = predict(own, trees, *OPTIONS, *options, output=first.output)
    assert second.code == 2
    assert "--overwrite would remove" in second.err and "copy it elsewhere" in second.err
    assert sorted(p for p in first.output.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize("command", ["predict", "represent"])
def test_carried_values_that_changed(command, request, sky, tmp_path):
    """Tables get the new ones without predicting; representations, which hold them, refuse."""
    run = request.getfixturevalue(command)
    member = checkpoints.member(tmp_path / "m.yaml", checkpoints.tree(tmp_path / "m.ckpt"))
    first = run(sky, member, *OPTIONS, "--carry", "ra")
    assert first.code == 0, first.err
    rows = pd.read_csv(sky)
    rows["ra"] = 99.5
    rows.to_csv(sky, index=False)
    second = run(sky, member, *OPTIONS, "--carry", "ra", output=first.output)
    if command == "represent":
        assert second.code == 2 and "carried values" in second.err
        return
    assert second.code == 0, second.err
    assert json.loads((second.output / "manifest.json").read_text())["rows_reused"] == 12
    for name in ("friendly", "advanced"):
        assert (second.table(name)["ra"] == 99.5).all()


def encoders(folder: Path) -> list[Path]:
    made = []
    for seed, name in enumerate(("m", "n")):
        path = checkpoints.zoobot_encoder(folder / f"{name}.ckpt", seed=seed)
        settings = {"zoobot_class": "ZoobotEncoder", "encoder": checkpoints.ARCHITECTURE}
        made.append(checkpoints.member(folder / f"{name}.yaml", path, **settings))
    return made


def test_representations_stopped_between_two_members(represent, sky, tmp_path):
    """An image has gone, another has come since: all members end with the same galaxies."""
    images = sky.parent / "images"
    (images / "0001.jpg").rename(tmp_path / "0001.jpg")
    options = [*OPTIONS, "--max_failure_fraction", 0.5]
    first = represent(sky, encoders(tmp_path), *options)
    (first.output / "representations" / "n" / "part-0000000.parquet").unlink()
    (tmp_path / "0001.jpg").rename(images / "0001.jpg")
    (images / "0002.jpg").unlink()
    second = represent(sky, encoders(tmp_path), *options, output=first.output)
    assert second.code == 0, second.err
    ids = [list(second.table(f"representations/{name}")["id_str"]) for name in ("m", "n")]
    failed = list(second.table("failures")["id_str"])
    assert ids[0] == ids[1] and failed == ["gal 0002"]
    assert sorted(ids[0] + failed) == [f"gal {n:04d}" for n in range(12)]


def test_representations_of_other_galaxies_are_not_believed(represent, sky, tmp_path):
    """Members' parts that do not belong together are an error that names them, never a table."""
    first = represent(sky, encoders(tmp_path), *OPTIONS)
    (sky.parent / "images" / "0001.jpg").unlink()
    other = represent(sky, encoders(tmp_path), *OPTIONS, "--max_failure_fraction", 0.5)
    name = "representations/n/part-0000000.parquet"
    shutil.copy(other.output / name, first.output / name)
    shutil.rmtree(first.output / "_tables")
    second = represent(sky, encoders(tmp_path), *OPTIONS, output=first.output)
    assert second.code == 2 and "hold different galaxies: delete both" in second.err


def test_an_unmounted_disk_on_resume(predict, sky, trees, tmp_path):
    """Catalogue and images are gone: the stored plan goes on, and finds that no image can be opened."""
    first = predict(sky, trees, *OPTIONS, "--snippets", "0:1")
    sky.parent.rename(tmp_path / "unmounted")
    second = predict(sky, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "can be opened" in second.err and "--image_root" in second.err
    (tmp_path / "unmounted").rename(sky.parent)
    third = predict(sky, trees, *OPTIONS, output=first.output)
    assert third.code == 0 and len(third.table("failures")) == 0


def test_the_rest_is_nothing_but_missing_files(predict, sky, trees):
    """A run that was stopped before its last snippets, of which no image is there, ends as one that was not."""
    for number in range(8, 12):
        (sky.parent / "images" / f"{number:04d}.jpg").unlink()
    options = [*OPTIONS, "--max_failure_fraction", 0.5]
    whole = predict(sky, trees, *options)
    assert whole.code == 0, whole.err
    first = predict(sky, trees, *options, "--snippets", "0:2")
    second = predict(sky, trees, *options, output=first.output)
    assert second.code == 0, second.err
    assert "warning: none of 4 images" in second.err
    pd.testing.assert_frame_equal(second.table("advanced"), whole.table("advanced"))
    pd.testing.assert_frame_equal(second.table("failures"), whole.table("failures"))


def test_other_images_under_another_root(predict, sky, trees, tmp_path):
    """The same names, other pictures: refused. The same pictures elsewhere: fine."""
    first = predict(sky, trees, *OPTIONS, "--snippets", "0:1")
    galaxies.simulated(tmp_path / "other", 12, seed=5)
    second = predict(sky, trees, *OPTIONS, "--image_root", tmp_path / "other", output=first.output)
    assert second.code == 2 and "is not the image that it was" in second.err
    shutil.copytree(sky.parent, tmp_path / "same")
    third = predict(sky, trees, *OPTIONS, "--image_root", tmp_path / "same", output=first.output)
    assert third.code == 0, third.err


def test_an_output_inside_the_catalogues_folder(predict, sky, trees, tmp_path):
    folder = tmp_path / "catalogue"
    folder.mkdir()
    pd.read_csv(sky).to_parquet(folder / "rows.parquet")
    options = [*OPTIONS, "--image_root", sky.parent]
    for _ in range(2):
        result = predict(folder, trees, *options, output=folder / "out")
        assert result.code == 0, result.err
    assert json.loads((folder / "out" / "manifest.json").read_text())["rows_reused"] == 12


@pytest.mark.parametrize("content", ["[]", '{"format": 1}', "{", '"x"', '{"format": 99}'])
def test_a_damaged_plan(predict, sky, trees, content):
    first = predict(sky, trees, *OPTIONS)
    (first.output / "_plan" / "plan.json").write_text(content)
    second = predict(sky, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "plan" in second.err.splitlines()[-1]
    assert second.err.splitlines()[-1].startswith("error: ")


def test_a_lost_plan(predict, sky, trees):
    first = predict(sky, trees, *OPTIONS)
    (first.output / "_plan" / "plan.json").unlink()
    second = predict(sky, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "has lost its plan" in second.err and "--overwrite" in second.err
    assert predict(sky, trees, *OPTIONS, "--overwrite", output=first.output).code == 0


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_damaged_rows_of_the_plan(predict, sky, trees, damage):
    first = predict(sky, trees, *OPTIONS)
    (rows,) = first.output.glob("_plan/rows-*/000000.parquet")
    data = rows.read_bytes()
    rows.unlink() if damage == "remove" else rows.write_bytes(data[:50])
    (first.output / "samples" / "part-0000000.parquet").unlink()
    second = predict(sky, trees, *OPTIONS, output=first.output)
    assert second.code == 2 and "is damaged" in second.err.splitlines()[-1]


def test_a_workers_device_is_its_own(predict, sky, trees, cluster):
    """The submitting machine need not have a GPU; a worker without one says so before its first image."""
    asked = predict(sky, trees, *OPTIONS, "--device", "cuda")
    assert asked.code == 2
    assert asked.err.splitlines()[-1].startswith("error: --device=cuda, but this machine has no usable GPU")
    assert (asked.output / "_plan").exists() and not (asked.output / "samples").exists()
    assert predict(sky, trees, *OPTIONS, "--device", "auto").code == 0


def test_snippets_on_a_cluster_build_no_tables(predict, sky, trees, cluster):
    result = predict(sky, trees, *OPTIONS, "--snippets", "1:2")
    assert result.code == 0, result.err
    assert [p.name for p in (result.output / "samples").iterdir()] == ["part-0000001.parquet"]
    assert not (result.output / "friendly").exists()


def test_a_pipe_that_nobody_writes_to(predict, sky, trees, tmp_path, monkeypatch):
    from beam_zoo.storage import yaml_files

    monkeypatch.setattr(yaml_files, "PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe.yaml")
    result = predict(sky, tmp_path / "pipe.yaml", *OPTIONS)
    assert (result.code == 2 and "mapping of names" in result.err) or "nobody writes" in result.err


def test_a_pipe_that_a_shell_writes_to(sky, trees, tmp_path):
    """`--config <(...)`, with a writer that takes its time."""
    script = 'exec "$0" -m pipelines.predict --config <(sleep 0.5; echo "passes: 3") --print_config'
    done = subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("passes")] == ["3"]


def test_a_key_twice_in_a_yaml(predict, sky, trees, tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(trees[0].read_text() + "\nname: other\n")
    result = predict(sky, path, *OPTIONS)
    assert result.code == 2 and "'name' stands there twice" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(sky, trees, tmp_path, number):
    """In the middle of inference: one line, no stack trace, 128 + the signal, and nothing left behind."""
    slow = checkpoints.member(tmp_path / "slow.yaml", trees[0].with_suffix(".ckpt"), view="default")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    argv = [
        sys.executable,
        "-m",
        "pipelines.predict",
        "--catalogue",
        sky,
        "--models",
        slow,
        "--snippet_size",
        1,
    ]
    argv += ["--output", tmp_path / "out", "--passes", 40]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [str(word) for word in argv],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    samples = tmp_path / "out" / "samples"
    while not (samples.exists() and any(p.name.startswith("part-") for p in samples.iterdir())):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, err
    assert "stopped: what is stored stays" in err.splitlines()[-1] and "Traceback" not in err
    assert not [p.name for p in temporary.iterdir() if p.name.startswith("beam-zoo")]


@pytest.mark.slow
def test_a_run_is_quiet(sky, trees, tmp_path):
    """A healthy run says a few lines; a folder that cannot be written is one."""
    argv = [
        sys.executable,
        "-m",
        "pipelines.predict",
        "--catalogue",
        sky,
        "--models",
        trees[0],
        "--passes",
        1,
    ]
    argv += ["--output", tmp_path / "out"]
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "INFO" not in done.stderr and len(done.stderr.splitlines()) < 10, done.stderr
    shutil.rmtree(tmp_path / "out" / "samples")
    (tmp_path / "out" / "samples").symlink_to(tmp_path / "nowhere" / "at-all")
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 12, done.stderr


def test_three_jobs_finish_one_output(predict, sky, trees):
    """All of them build the tables of the same samples at the same time, again and again."""
    from beam_zoo.tables.tables import remove_reports
    from pipelines import finish

    first = predict(sky, trees, *OPTIONS)
    healthy = first.table("advanced")
    codes = []

    def again():
        for _ in range(4):
            remove_reports(str(first.output), 0)  # so that there is something to build
            codes.append(finish.finish(str(first.output), 0.05, []))

    threads = [threading.Thread(target=again) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 12
    pd.testing.assert_frame_equal(first.table("advanced"), healthy)
