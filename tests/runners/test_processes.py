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
from tests.waiting import wait_for


class Note(beam.DoFn):
    """Writes which process it runs in."""

    def process(self, path: str):
        Path(path).write_text(str(os.getpid()))
        time.sleep(0.3)  # long enough for other processes to have their share


class NotPickled(Exception):
    """It is made from a number, and pickled as its text."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number:d} things")


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
        elif self._what == "not pickled":
            raise NotPickled(3)
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
        ("broken", ZeroDivisionError, "a fault of ours"),
        ("not pickled", RuntimeError, "NotPickled: 3 things"),
    ],
)
def test_an_error_in_another_process(two, what, kind, text):
    builds = [functools.partial(fail, ours=os.getpid(), what=what) for _ in range(40)]
    with pytest.raises(kind) as caught:
        processes.run_all(builds, [])
    assert type(caught.value) is kind and text in str(caught.value)
    if what == "broken":
        assert "in process" in "".join(caught.value.__notes__)  # where it was raised
    assert not children()


PROGRAM = """
import functools, sys
from pipelines import command
from runners import processes
from tests.runners.test_processes import note
processes.cores = lambda: 2
processes.available_memory = lambda: 10 << 30
paths = [f"{sys.argv[1]}/{number}" for number in range(200)]
builds = [functools.partial(note, path=path) for path in paths]
sys.exit(command.guarded(lambda: processes.run_all(builds, []) or 0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_other_processes_end_with_the_command(tmp_path, how):
    """Signals go to the command's process group, as from a terminal: no process prints a stack trace."""
    command = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stderr=subprocess.PIPE, text=True, process_group=0
    )

    def pids() -> set[int]:
        return {int(text) for path in tmp_path.iterdir() if (text := path.read_text())}

    wait_for(lambda: len(pids()) == 2 or command.poll() is not None, 60)
    (other,) = pids() - {command.pid}
    os.killpg(command.pid, how)
    _, told = command.communicate(timeout=30)
    wait_for(lambda: not running(other), 30)
    assert len(list(tmp_path.iterdir())) < 200
    assert [line.split(":")[0] for line in told.splitlines()] == (
        [] if how == signal.SIGKILL else ["stopped"]
    )


def running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
