"""A Flink cluster that runs already, without Slurm."""

import contextlib
import dataclasses
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipelines import aggregate, audit
from tests.cluster.compare import assert_same
from tests.cluster.conftest import RUN
from tests.waiting import wait_for


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass
class Running:
    """A cluster.

    Attributes:
        master: host and port of its REST interface.
        pids: of its processes.
    """

    master: str
    pids: list[int]


@pytest.fixture(scope="module")
def running(flink: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Flink's own scripts start it, with a configuration as it is shipped, on loopback."""
    conf = tmp_path_factory.mktemp("conf")
    shipped = yaml.safe_load((flink / "flink" / "conf" / "config.yaml").read_text())
    rest = free_port()
    settings = {
        "env.java.opts.all": shipped["env"]["java"]["opts"]["all"],
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": free_port(),
        "rest.address": "127.0.0.1",
        "rest.port": rest,
        "taskmanager.host": "127.0.0.1",
        "taskmanager.numberOfTaskSlots": 2,
        "taskmanager.memory.process.size": "1728m",
        "jobmanager.memory.process.size": "1200m",
        "taskmanager.network.sort-shuffle.min-buffers": 64,  # as docs/clusters.md says
    }
    settings |= {f"{each}.bind-host": "127.0.0.1" for each in ("jobmanager", "taskmanager")}
    (conf / "config.yaml").write_text(yaml.safe_dump(settings))
    (conf / "log4j-console.properties").write_text(
        (flink / "flink" / "conf" / "log4j-console.properties").read_text()
    )
    environment = {**os.environ, "FLINK_CONF_DIR": str(conf), "FLINK_LOG_DIR": str(conf)}
    processes = []
    with open(conf / "output", "wb") as log:
        for name in ("jobmanager", "taskmanager"):
            words = [flink / "flink" / "bin" / f"{name}.sh", "start-foreground"]
            processes.append(
                subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )
    try:
        wait_for(lambda: slots(rest) == 2, 60, (conf / "output").read_text)
        yield Running(f"127.0.0.1:{rest}", [process.pid for process in processes])
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.fixture
def master(running: Running) -> str:
    """Host and port of its REST interface."""
    return running.master


def slots(port: int) -> int:
    """Slots of the cluster; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/overview", timeout=5) as answer:
            return json.load(answer)["slots-total"]
    except OSError:
        return 0


@pytest.fixture
def flags(master: str, job_server_jar: Path, flink: Path) -> list[str]:
    """Beam's options for this cluster."""
    environment = {"command": str(flink / "boot"), "env": {"BEAM_ZOO_PYTHON": sys.executable}}
    return [
        "--runner=FlinkRunner",
        f"--flink_master={master}",
        f"--flink_job_server_jar={job_server_jar}",
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps(environment)}",
        "--parallelism=2",
    ]


def listening(pids: list[int]) -> set[str]:
    """Ports on which these processes listen."""
    words = ["ss", "-H", "-l", "-n", "-t", "-u", "-p"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return {line.split()[4] for line in said.splitlines() if any(f"pid={pid}," in line for pid in pids)}


@contextlib.contextmanager
def nothing_new_listens(running: Running) -> Iterator[None]:
    """While the block runs: neither the command, in this process, nor the cluster opens a port."""
    pids = [os.getpid(), *running.pids]
    before = listening(pids)
    rest = running.master.rpartition(":")[2]
    assert any(each.endswith(f":{rest}") for each in before)
    done, looks = threading.Event(), []

    def look() -> None:
        while not done.wait(0.2):
            looks.append(listening(pids))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert len(looks) > 10
    assert all(now <= before for now in looks)


def test_like_the_local_runner(predict, catalogue, trees, direct_run, flags, tmp_path, capfd, running):
    """The same commands with another runner, the same tables; and no port is opened for it on this side."""
    with nothing_new_listens(running):
        there = predict(catalogue, trees, *RUN, *flags)
        assert there.code == 0, there.err
        report = tmp_path / "report"
        report.mkdir()
        assert audit.main([str(there.output), f"--report={report}", *flags]) == 0, capfd.readouterr()
        joined = tmp_path / "joined"
        words = ["--samples", str(there.output), "--output", str(joined)]
        assert aggregate.main([*words, *flags]) == 0, capfd.readouterr()
    assert_same(direct_run, there.output)
    for table in ("friendly", "advanced", "failures"):
        pd.testing.assert_frame_equal(pd.read_parquet(joined / table), there.table(table))


def test_what_a_worker_finds(predict, catalogue, trees, flags):
    """One line, without Java's stack traces."""
    result = predict(catalogue, trees, "--device=cuda", *flags)
    assert result.code == 2
    assert "error: --device=cuda, but this machine has no usable GPU" in result.err.splitlines()[-1]
    assert "\tat " not in result.err


def test_ctrl_c_cancels_the_job(catalogue, slow, flags, tmp_path, master):
    """What ran there runs no more, and the jar is gone."""
    words = ["--catalogue", catalogue, "--models", slow, "--output", tmp_path / "out", "--snippet_size", "4"]
    command = [sys.executable, "-m", "pipelines.predict", *map(str, words), *flags, "--passes", "20"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list((tmp_path / "out").glob("samples/part-*.parquet")), 200, str)
    assert "RUNNING" in states(master)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said.splitlines()[-1].startswith("stopped: what is stored stays")
    wait_for(lambda: states(master) <= {"CANCELED", "FINISHED", "FAILED"}, 60, lambda: str(states(master)))
    assert ask(master, "jars")["files"] == []


def ask(master: str, path: str) -> dict:
    """An answer of the cluster."""
    with urllib.request.urlopen(f"http://{master}/{path}", timeout=5) as answer:
        return json.load(answer)


def states(master: str) -> set[str]:
    """Those of all its jobs."""
    return {job["status"] for job in ask(master, "jobs")["jobs"]}


def failed(result) -> str:
    """The one line of a command that failed because of its runner, or of an option."""
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0] == result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    return lines[0]


def test_no_cluster_there(predict, catalogue, trees, flags):
    """One line."""
    result = predict(catalogue, trees, *flags, f"--flink_master=127.0.0.1:{free_port()}")
    assert result.code == 1
    assert "the runner failed" in failed(result) and "Connection refused" in failed(result)


def test_no_jar_of_the_runner(predict, catalogue, trees, flags):
    """Beam cannot download it: the line says what to give."""
    flags = [flag for flag in flags if not flag.startswith("--flink_job_server_jar")]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as repository:
        threading.Thread(target=repository.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{repository.server_port}"
        result = predict(catalogue, trees, *flags, f"--maven_repository_url={url}")
        repository.shutdown()
    assert result.code == 2
    assert "error: Beam cannot download its Flink runner (" in failed(result)
    assert "give --flink_job_server_jar PATH" in failed(result)


class Empty(http.server.BaseHTTPRequestHandler):
    """A Maven repository without anything."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
