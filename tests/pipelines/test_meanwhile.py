"""Table parts that are built while others are predicted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from beam_zoo.images import decoders
from beam_zoo.tables import tables
from pipelines import meanwhile
from pipelines import run as runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_table_parts")]
GIVEN = ["--passes", 2, "--snippet_size", 4]


def start(output: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "pipelines.meanwhile", str(output)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: str) -> None:
    end = time.monotonic() + 120
    while not os.path.exists(path):
        assert time.monotonic() < end, path
        time.sleep(0.1)


@pytest.mark.slow
def test_what_is_complete_is_built(predict, few, trees):
    """The parts whose samples are all there, and not the next; the command then builds the others only."""
    whole = predict(few, trees[0], *GIVEN)
    some = predict(few, trees[0], *GIVEN, "--snippets", "0:5")  # two table parts of two snippets, and a half
    process = start(some.output)
    reports = [tables.report_path(str(some.output), part) for part in range(3)]
    for report in reports[:2]:
        wait_for(report)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert not os.path.exists(reports[2])
    before = [os.stat(report).st_mtime_ns for report in reports[:2]]
    done = predict(few, trees[0], *GIVEN, output=some.output)
    assert done.code == 0, done.err
    assert [os.stat(report).st_mtime_ns for report in reports[:2]] == before
    for name in ("friendly", "advanced", "failures"):
        pd.testing.assert_frame_equal(done.table(name), whole.table(name))


@pytest.mark.slow
def test_what_it_cannot_do_is_done_afterwards(predict, few, trees):
    some = predict(few, trees[0], *GIVEN, "--snippets", "0:5")
    part = sorted((some.output / "samples").iterdir())[0]
    data = part.read_bytes()
    part.write_bytes(data[:100])
    with start(some.output) as process:  # it ends although its input does not
        said = process.stderr.read()
    assert process.returncode == 0
    assert said.splitlines()[-1].startswith("note: no tables are built meanwhile: ")
    part.write_bytes(data)
    assert predict(few, trees[0], *GIVEN, output=some.output).code == 0


@pytest.mark.slow
def test_interrupted(few, trees, tmp_path):
    """Ctrl-C means the command and all of its processes; what is there already stays."""
    program = (
        "import sys, time; from beam_zoo import decoders, plan, store; decoders.AHEAD['cpu'] = True; plan.TABLE_ROWS = 8\n"
        "real = store.store\n"
        "def slowly(*given):\n    time.sleep(1)\n    return real(*given)\n"
        "store.store = slowly\n"
        "from pipelines import predict; sys.exit(predict.main(sys.argv[1:]))"
    )
    words = [
        "--catalogue",
        str(few),
        "--models",
        str(trees[0]),
        "--output",
        str(tmp_path / "out"),
        "--passes",
        "1",
    ]
    command = subprocess.Popen(
        [sys.executable, "-c", program, *words, "--snippet_size", "4"],
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    wait_for(str(tmp_path / "out" / "samples"))
    (child,) = (int(p) for p in children(command.pid) if b"pipelines.meanwhile" in cmdline(p))
    os.killpg(command.pid, signal.SIGINT)
    _, said = command.communicate(timeout=120)
    assert command.returncode == 130, said
    assert said.splitlines()[-1].startswith("stopped: ") and "Traceback" not in said
    assert b"pipelines.meanwhile" not in cmdline(child)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.predict", *words, "--snippet_size", "4"], capture_output=True
    )
    assert done.returncode == 0


def children(process: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def cmdline(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_beside_a_gpu(predict, few, trees, monkeypatch):
    """As for a GPU: the process is there while galaxies are predicted, and has ended afterwards."""
    whole = predict(few, trees[0], *GIVEN)
    processes = []
    begin = subprocess.Popen

    def noted(words, **how):
        process = begin(words, **how)
        if "pipelines.meanwhile" in words:
            processes.append(process)
        return process

    monkeypatch.setattr(meanwhile.subprocess, "Popen", noted)
    monkeypatch.setitem(runs.AHEAD, "cpu", True)
    assert runs.AHEAD is decoders.AHEAD
    done = predict(few, trees[0], *GIVEN)
    assert done.code == 0, done.err
    assert [process.returncode for process in processes] == [0]
    for name in ("friendly", "advanced", "failures"):
        pd.testing.assert_frame_equal(done.table(name), whole.table(name))
    predict(few, trees[0], *GIVEN, "--snippets", "0:5", output=done.output.with_name("some"))
    assert len(processes) == 1  # there are no tables to build
