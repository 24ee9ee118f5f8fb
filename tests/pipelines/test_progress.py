"""The progress of a run: a live bar on a terminal, plain lines in a log."""

import itertools
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest

from beam_zoo.runtime import progress
from tests import checkpoints


def on_a_terminal(argv: list[str]) -> list[tuple[float, str]]:
    """Run a command whose stderr is a terminal: what it wrote, piece by piece, with the time of each."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    pieces = []
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        pieces.append((time.monotonic(), data.decode(errors="replace")))
    os.close(ours)
    assert process.wait() == 0, "".join(text for _, text in pieces)
    return pieces


@pytest.mark.slow
def test_a_live_bar(few, trees, tmp_path):
    """The count of galaxies moves within a snippet and within a batch."""
    slow = checkpoints.member(tmp_path / "slow.yaml", trees[0].with_suffix(".ckpt"), view="default")
    argv = [sys.executable, "-m", "pipelines.predict", "--catalogue", few, "--models", slow]
    argv += ["--output", tmp_path / "out", "--snippet_size", 12, "--passes", 40]
    pieces = on_a_terminal([str(word) for word in argv])
    shown = [(moment, int(n)) for moment, text in pieces for n in re.findall(r"(\d+)/23", text)]
    counts = [count for _, count in shown]
    assert counts == sorted(counts) and counts[-1] == 23
    assert len(set(counts)) > 4, "a snippet is one batch here: it must move within it"
    first = next(moment for moment, count in shown if count)
    changes = [first] + [b for (_, m), (b, n) in itertools.pairwise(shown) if n != m and m]
    assert max(b - a for a, b in itertools.pairwise(changes)) < 5
    assert "0 failed" in "".join(text for _, text in pieces)


def test_lines_in_a_log(predict, few, trees):
    """Not a terminal: lines without carriage returns, the last with the totals."""
    result = predict(few, trees, "--passes", "1")
    lines = [line for line in result.err.splitlines() if line.startswith("predict: ")]
    assert "\r" not in result.err
    assert re.match(r"predict: 23 of 23 galaxies, [\d.]+ galaxies/s, after \d+ s, 0 failed", lines[-1])


def test_steps_are_added_up():
    """Galaxies count in shares of members, from several threads; each run has a count of its own."""
    with progress.LocalProgress(10, "test") as shown, progress.LocalProgress(10, "another") as other:
        threads = [
            threading.Thread(target=lambda: [progress.add(shown.name, inferred=1 / 3) for _ in range(3000)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress.add(shown.name, inferred=0.5)
        progress.add(shown.name, failed=1)
        done, failed = shown.read()
        assert (round(done, 3), failed) == (4001.5, 1)
        assert other.read() == (0, 0)
    progress.add(shown.name, inferred=1)  # a step that outlives the run is not disturbed
    progress.add(None, inferred=1)
    assert shown.read() == (done, failed)


@pytest.mark.slow
def test_a_run_is_quiet(own_catalogue, trees, tmp_path):
    """A healthy run says a few lines; a folder that cannot be written is one."""
    argv = [sys.executable, "-m", "pipelines.predict", "--catalogue", own_catalogue, "--models", trees[0]]
    argv = [str(word) for word in [*argv, "--passes", 1, "--output", tmp_path / "out"]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "INFO" not in done.stderr and len(done.stderr.splitlines()) < 10, done.stderr
    shutil.rmtree(tmp_path / "out" / "samples")
    (tmp_path / "out" / "samples").symlink_to(tmp_path / "nowhere" / "at-all")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 12, done.stderr
