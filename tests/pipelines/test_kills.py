"""A run is killed, with all of its processes, and started again with the same command."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import checkpoints, galaxies
from tests.waiting import wait_for

SNIPPETS = 100
ROWS = 2 * SNIPPETS
SECONDS = 200


@pytest.fixture(scope="module")
def sky(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    galaxies.simulated(folder, ROWS, size=64)
    return folder / "catalogue.csv"


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> list[Path]:
    """One member with random views, so that a snippet takes long enough to be killed in the middle."""
    folder = tmp_path_factory.mktemp("members")
    path = checkpoints.tree(folder / "m.ckpt")
    return [checkpoints.member(folder / "m.yaml", path, view={"base": "default", "output_size": 64})]


def command(sky: Path, members: list[Path], output: Path, *options: str) -> list[str]:
    argv = [sys.executable, "-m", "pipelines.predict", "--catalogue", sky, "--models", *members]
    argv += [
        "--output",
        output,
        "--snippet_size",
        ROWS // SNIPPETS,
        "--passes",
        3,
        "--batch_size",
        2,
        *options,
    ]
    return [str(word) for word in argv]


def start(argv: list[str]) -> subprocess.Popen:
    """In a process group of its own, so that its workers die with it."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(argv, start_new_session=True, **quiet)


def kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def stored(output: Path) -> int:
    folder = output / "samples"
    return sum(name.startswith("part-") for name in os.listdir(folder)) if folder.exists() else 0


def contents(output: Path) -> dict[str, bytes]:
    names = ("samples", "friendly", "advanced", "failures")
    return {
        f"{n}/{p.name}": p.read_bytes() for n in names for p in (output / n).iterdir() if p.name[0] != "."
    }


@pytest.fixture(scope="module")
def uninterrupted(sky, members, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted") / "out"
    subprocess.run(command(sky, members, output), check=True, capture_output=True)
    return output


@pytest.mark.slow
def test_killed_at_20_random_moments(sky, members, uninterrupted, tmp_path):
    """While planning, predicting, storing or building tables: the last run ends with the same bytes."""
    chance = random.Random(0)
    output = tmp_path / "out"
    kept: dict[str, bytes] = {}
    kills = 0
    while kills < 20:
        process = start(command(sky, members, output))
        target = stored(output) + chance.randint(0, 8)
        deadline = time.monotonic() + chance.uniform(2, 20)
        while process.poll() is None and stored(output) < target and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        if process.poll() is not None:
            assert process.returncode == 0
            (output / "manifest.json").unlink()  # killed just before its end: the tables are built again
        else:
            kill(process)
        kills += 1
        now = {p.name: p.read_bytes() for p in (output / "samples").glob("part-*")}
        assert kept.items() <= now.items(), "a stored part was lost or replaced"
        kept = now
    result = subprocess.run(command(sky, members, output), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert contents(output) == contents(uninterrupted)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["rows_predicted"] == ROWS and manifest["rows_reused"] == 2 * len(kept)


@pytest.mark.slow
def test_killed_at_half_of_100_snippets(sky, members, uninterrupted, tmp_path):
    """No more than 60 are predicted by the second run."""
    output = tmp_path / "out"
    process = start(command(sky, members, output))
    wait_for(lambda: stored(output) >= SNIPPETS // 2, SECONDS, every=0.01)
    assert process.poll() is None
    kill(process)
    before = stored(output)
    subprocess.run(command(sky, members, output), check=True, capture_output=True)
    manifest = json.loads((output / "manifest.json").read_text())
    predicted = (manifest["rows_predicted"] - manifest["rows_reused"]) // 2
    assert predicted == SNIPPETS - before <= 60
    assert contents(output) == contents(uninterrupted)


@pytest.mark.slow
def test_two_jobs_on_one_output(sky, members, uninterrupted, tmp_path):
    """Started at the same moment: both end well, share the snippets, and leave one healthy output."""
    output = tmp_path / "out"
    jobs = [
        subprocess.Popen(command(sky, members, output), stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    errors = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], errors
    assert contents(output) == contents(uninterrupted)
    done = [
        int(line.split(" of ")[0].split()[-1].replace(",", ""))
        for e in errors
        for line in e.splitlines()[-2:-1]
    ]
    assert json.loads((output / "manifest.json").read_text())["rows_predicted"] == ROWS
    assert len(done) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(own_catalogue, trees, tmp_path, number):
    """In the middle of inference: one line, no stack trace, 128 + the signal, and nothing left behind."""
    slow = checkpoints.member(tmp_path / "slow.yaml", trees[0].with_suffix(".ckpt"), view="default")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ["--catalogue", own_catalogue, "--models", slow, "--output", tmp_path / "out"]
    words += ["--snippet_size", 1, "--passes", 40]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.predict", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    wait_for(lambda: stored(tmp_path / "out"), SECONDS)
    assert process.poll() is None
    os.kill(process.pid, number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, err
    assert "stopped: what is stored stays" in err.splitlines()[-1] and "Traceback" not in err
    assert not [p.name for p in temporary.iterdir() if p.name.startswith("beam-zoo")]
