"""A Flink cluster that runs already, without Slurm."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster import job_server
from tests.cluster.compare import assert_same
from tests.cluster.conftest import wait_for


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def master(flink: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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
        yield f"127.0.0.1:{rest}"
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def slots(port: int) -> int:
    """Slots of the cluster; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/overview", timeout=5) as answer:
            return json.load(answer)["slots-total"]
    except OSError:
        return 0


@pytest.fixture(scope="module")
def jar(flink: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job server, which Beam would otherwise download."""
    return job_server.make(flink, tmp_path_factory.mktemp("jar") / "beam-runners-flink-1.19-job-server.jar")


@pytest.fixture
def flags(master: str, jar: Path, flink: Path) -> list[str]:
    """Beam's options for this cluster."""
    environment = {"command": str(flink / "boot"), "env": {"BEAM_ZOO_PYTHON": sys.executable}}
    return [
        "--runner=FlinkRunner",
        f"--flink_master={master}",
        f"--flink_job_server_jar={jar}",
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps(environment)}",
        "--parallelism=2",
    ]


@pytest.mark.parametrize("how", [[], ["--flink_submit_uber_jar"]], ids=["job server", "uber jar"])
def test_like_the_local_runner(predict, catalogue, trees, flags, how):
    """The same command with another runner; the same tables."""
    there = predict(catalogue, trees, "--snippet_size", 16, *flags, *how)
    assert there.code == 0, there.err
    here = predict(catalogue, trees, "--snippet_size", 16)
    assert_same(here.output, there.output)


def test_what_a_worker_finds(predict, catalogue, trees, flags):
    """One line, without Java's stack traces."""
    result = predict(catalogue, trees, "--device=cuda", *flags, "--flink_submit_uber_jar")
    assert result.code == 2
    assert "error: --device=cuda, but this machine has no usable GPU" in result.err.splitlines()[-1]
    assert "\tat " not in result.err


def test_no_cluster_there(predict, catalogue, trees, flags):
    """One line."""
    nobody = [f"--flink_master=127.0.0.1:{free_port()}", "--flink_submit_uber_jar"]
    result = predict(catalogue, trees, *flags, *nobody)
    assert result.code == 1
    assert "error: the runner failed" in result.err and "Connection refused" in result.err.splitlines()[-1]
