"""The processes that decode images for a GPU: they end when the command does, and it ends if they do."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from beam_zoo.images import decoding_processes
from beam_zoo.images.decoders import AHEAD
from tests import checkpoints, galaxies

pytestmark = pytest.mark.slow
AS_ON_A_GPU = "import sys; from beam_zoo.images import decoders; decoders.AHEAD['cpu'] = True; " + (
    "from pipelines import predict; sys.exit(predict.main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """Arguments of a command that takes long: random views of many galaxies."""
    folder = tmp_path_factory.mktemp("sky")
    galaxies.simulated(folder, 600, size=64)
    path = checkpoints.tree(folder / "m.ckpt")
    view = {"base": "default", "output_size": 64}
    member = checkpoints.member(folder / "m.yaml", path, view=view)
    given = ["--passes", "5", "--batch_size", "8", "--snippet_size", "16"]
    return ["--catalogue", str(folder / "catalogue.csv"), "--models", str(member), *given]


@contextlib.contextmanager
def running(words: list[str], output: Path) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """The command, when its first part is stored, and the processes that decode."""
    command = [sys.executable, "-c", AS_ON_A_GPU, *words, "--output", str(output)]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait(lambda: list(output.glob("samples/*.parquet")) or process.poll() is not None)
            assert process.poll() is None, process.communicate()[1]
            yield process, decoders(process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait(happened: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def decoders(session: int) -> list[int]:
    """The processes that multiprocessing's fork server started in a session, without the server itself."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[1:4]
            names = [command_line(folder), command_line(Path("/proc") / parent)]
            if own == str(session) and all("multiprocessing.forkserver" in name for name in names):
                found.append(int(folder.name))
    return found


def command_line(folder: Path) -> str:
    return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_only_beside_a_gpu():
    assert AHEAD == {"cpu": False, "cuda": True}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_command_is_ended(words, tmp_path, number):
    with running(words, tmp_path / "out") as (process, pids):
        assert pids
        process.send_signal(number)
        wait(lambda: gone(pids), 20)
        assert process.wait(20) == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]


def test_everything_is_ended_at_once(words, tmp_path):
    """As a batch system does: the command prints its usual line, and its processes print nothing."""
    with running(words, tmp_path / "out") as (process, pids):
        os.killpg(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=20)[1]
        assert process.returncode == 143
        assert "Traceback" not in said and "decodes" not in said, said
        wait(lambda: gone(pids), 20)


def test_a_decoder_is_killed(words, tmp_path):
    with running(words, tmp_path / "out") as (process, pids):
        os.kill(pids[0], signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert said.splitlines()[-1].startswith("error: a process that decodes images has ended: "), said
        assert "Traceback" not in said
        wait(lambda: gone(pids), 20)


def test_a_failure_leaves_nothing_waiting(words, tmp_path):
    """Many messages to the processes are under way when the first batch fails."""
    fails = (
        "from beam_zoo import errors\nfrom beam_zoo.inference import handler as inference\n"
        "def fail(*_): raise errors.RunFailed('no such luck')\n"
        "inference.MemberHandler._outputs = fail\n"
    )
    given = [*words, "--batch_size", "256", "--snippet_size", "600", "--output", str(tmp_path / "out")]
    command = [sys.executable, "-c", fails + AS_ON_A_GPU, *given]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=90)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "error: no such luck", done.stderr


def test_no_processes_here(predict, few, tmp_path, monkeypatch):
    """Threads decode instead, and say so; the same numbers."""
    path = checkpoints.tree(tmp_path / "m.ckpt")
    member = checkpoints.member(tmp_path / "m.yaml", path)
    expected = predict(few, member, "--passes", 2)

    def refuse() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(decoding_processes, "begin_to_import", refuse)
    monkeypatch.setitem(AHEAD, "cpu", True)
    found = predict(few, member, "--passes", 2)
    assert "no processes can be started to decode images (AF_UNIX path too long): threads" in found.err
    pd.testing.assert_frame_equal(found.table("samples"), expected.table("samples"))
