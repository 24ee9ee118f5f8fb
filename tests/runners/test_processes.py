"""Pipelines in several processes: all are run, errors arrive as themselves, and nothing is left behind."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import pytest

from beam_zoo.errors import RunFailed, StorageFull, UserError
from runners import processes


class Note(beam.DoFn):
    """Writes which process it runs in."""

    def process(self, path: str):
        Path(path).write_text(str(os.getpid()))
        time.sleep(0.3)  # long enough for other processes to have their share


class Fail(beam.DoFn):
    """Fails in other processes than that of a pid."""

    def __init__(self, ours: int, what: str) -> None:
        self._ours, self._what = ours, what

    def process(self, path: str):
        if os.getpid() == self._ours:
            time.sleep(0.5)
        elif self._what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._what == "broken":
            raise ZeroDivisionError("a fault of ours")
        else:
            raise {"user": UserError, "full": StorageFull}[self._what](f"what is wrong with {path}")


def note(p: beam.Pipeline, path: str) -> None:
    """A pipeline of one element."""
    p | beam.Create([path]) | beam.ParDo(Note())


def fail(p: beam.Pipeline, ours: int, what: str) -> None:
    """A pipeline that fails elsewhere."""
    p | beam.Create(["x"]) | beam.ParDo(Fail(ours, what))


@pytest.fixture
def two(monkeypatch):
    """This machine has two cores, and memory."""
    monkeypatch.setattr(processes, "cores", lambda: 2)
    monkeypatch.setattr(processes, "available_memory", lambda: 10 << 30)


def children() -> list[int]:
    """Processes that this one has started and that have not ended."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "runners.processes" in line]


def test_every_pipeline_is_run_and_two_processes_share_them(two, tmp_path):
    paths = [tmp_path / str(number) for number in range(30)]
    processes.run_all([functools.partial(note, path=str(path)) for path in paths], [])
    pids = {int(path.read_text()) for path in paths}
    assert len(pids) == 2 and os.getpid() in pids
    assert not children()


@pytest.mark.parametrize(
    ("builds", "cores", "memory", "expected"),
    [
        (100, 8, 100 << 30, 8),
        (5, 8, 100 << 30, 5),
        (2, 8, 100 << 30, 1),  # done before another process has started
        (100, 1, 100 << 30, 1),
        (100, 8, 3 * processes.MEMORY, 4),
        (100, 8, 0, 1),
    ],
)
def test_how_many_processes(monkeypatch, builds, cores, memory, expected):
    monkeypatch.setattr(processes, "cores", lambda: cores)
    monkeypatch.setattr(processes, "available_memory", lambda: memory)
    assert processes._count(builds) == expected


@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("user", UserError, "what is wrong with x"),
        ("full", StorageFull, "what is wrong with x"),
        ("killed", RunFailed, "has ended (SIGKILL): is there enough memory"),
        ("broken", RuntimeError, "ZeroDivisionError: a fault of ours"),
    ],
)
def test_an_error_in_another_process(two, what, kind, text):
    builds = [functools.partial(fail, ours=os.getpid(), what=what) for _ in range(40)]
    with pytest.raises(kind) as caught:
        processes.run_all(builds, [])
    assert type(caught.value) is kind and text in str(caught.value)
    assert not children()


PROGRAM = """
import functools, sys
from runners import processes
from tests.runners.test_processes import note
processes.cores = lambda: 2
processes.available_memory = lambda: 10 << 30
paths = [f"{sys.argv[1]}/{number}" for number in range(200)]
processes.run_all([functools.partial(note, path=path) for path in paths], [])
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_other_processes_end_with_the_command(tmp_path, how):
    command = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    pids: set[int] = set()
    deadline = time.monotonic() + 60
    while len(pids) < 2:
        assert time.monotonic() < deadline and command.poll() is None
        pids = {int(text) for path in tmp_path.iterdir() if (text := path.read_text())}
        time.sleep(0.05)
    command.send_signal(how)
    command.wait(30)
    (other,) = pids - {command.pid}
    while (
        Path(f"/proc/{other}").exists()
        and "Z" not in Path(f"/proc/{other}/stat").read_text().split(")")[1][:3]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    count = len(list(tmp_path.iterdir()))
    assert count < 200
