"""What starts workers, against a real provision service of Beam's."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2 as messages
from apache_beam.portability.api import beam_provision_api_pb2_grpc as services
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from runners.flink import boot
from tests.waiting import wait_for

SECONDS = 120


class Provision(services.ProvisionServiceServicer):
    """Tells what a TaskManager would."""

    def GetProvisionInfo(self, request, context):
        assert ("worker_id", "1-1") in context.invocation_metadata()
        options = JobServiceHandle.encode_pipeline_options({"job_name": "galaxies"})
        return messages.GetProvisionInfoResponse(
            info=messages.ProvisionInfo(
                pipeline_options=options,
                logging_endpoint=endpoints_pb2.ApiServiceDescriptor(url="127.0.0.1:1"),
                control_endpoint=endpoints_pb2.ApiServiceDescriptor(url="127.0.0.1:2"),
                runner_capabilities=["one", "two"],
            )
        )


@pytest.fixture
def endpoint():
    """Its address."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    services.add_ProvisionServiceServicer_to_server(Provision(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def test_settings(endpoint):
    """Beam's own worker reads them."""
    from apache_beam.runners.worker import sdk_worker_main

    made = boot.settings({"id": "1-1", "provision_endpoint": endpoint})
    assert made["WORKER_ID"] == "1-1" and made["RUNNER_CAPABILITIES"] == "one two"
    assert made["LOGGING_API_SERVICE_DESCRIPTOR"] == 'url: "127.0.0.1:1"'
    assert made["CONTROL_API_SERVICE_DESCRIPTOR"] == 'url: "127.0.0.1:2"'
    read = sdk_worker_main._load_pipeline_options(made["PIPELINE_OPTIONS"])
    assert PipelineOptions.from_dictionary(read).get_all_options()["job_name"] == "galaxies"


def boot_words(endpoint: str) -> list[str]:
    """As Flink has them."""
    return [
        *(sys.executable, "-m", "runners.flink.boot", "--id=1-1"),
        *(f"--provision_endpoint={endpoint}", "--semi_persist_dir=/tmp"),
    ]


def logs(folder: Path) -> dict[int, str]:
    """What workers printed, by process."""
    found = {
        int(re.search(r"-(\d+)\.log", path.name)[1]): path.read_text() for path in folder.glob("worker-*.log")
    }
    return {pid: text for pid, text in found.items() if "GPUs" in text}


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_log_of_its_own(endpoint, tmp_path):
    """What the worker prints is in a file, and nothing in the pipe that Flink does not read."""
    environment = {**os.environ, boot.LOGS: str(tmp_path), "CUDA_VISIBLE_DEVICES": "3"}
    process = subprocess.Popen(
        boot_words(endpoint), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_for(lambda: logs(tmp_path), SECONDS)
    process.kill()  # it waits for endpoints at which nobody is
    assert process.communicate()[0] == b""
    first = logs(tmp_path)[process.pid].splitlines()[0]
    assert first.endswith(f"worker 1-1 on {os.uname().nodename}, GPUs 3")


@pytest.fixture
def workers(tmp_path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """What forks workers, and the environment in which it does."""
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    environment = {**os.environ, boot.LOGS: str(tmp_path), boot.SOCKETS: str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "runners.flink.worker"], env=environment, stdin=subprocess.PIPE
    )
    wait_for((folder / "workers").exists, SECONDS)
    yield process, environment
    if process.poll() is None:
        process.stdin.close()
        assert process.wait(60) == 0


def test_forked_workers(endpoint, workers, tmp_path):
    """Each `boot` has its own worker, and each ends if the other does; all end with what forks them."""
    process, environment = workers
    boots = [subprocess.Popen(boot_words(endpoint), env=environment) for _ in range(3)]
    wait_for(lambda: len(logs(tmp_path)) == 3, SECONDS)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert sorted(map(int, children)) == sorted(logs(tmp_path))

    first = min(logs(tmp_path))
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: any(each.poll() is not None for each in boots), SECONDS)
    assert [each.poll() for each in boots if each.poll() is not None] == [boot.KILLED]
    assert not is_there(first)  # not even as a zombie

    left = next(each for each in boots if each.poll() is None)
    left.kill()
    wait_for(lambda: sum(map(is_there, logs(tmp_path))) == 1, SECONDS)

    process.stdin.close()
    assert process.wait(60) == 0
    wait_for(lambda: not any(map(is_there, logs(tmp_path))), SECONDS)
    for each in boots:
        each.wait(60)


def test_a_worker_that_fails(workers, tmp_path):
    """Its exit code is that of `boot`, and its log says why."""
    _, environment = workers
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        words = boot_words(f"127.0.0.1:{nobody.getsockname()[1]}")
        assert subprocess.run(words, env=environment).returncode == 1
    (text,) = logs(tmp_path).values()
    assert "Connection refused" in text


def test_what_is_imported_can_be_forked():
    """No thread of Python's has started, and no GPU was touched."""
    text = (
        "import importlib, threading, runners.flink.worker as worker\n"
        "for name in worker.NEEDED: importlib.import_module(name)\n"
        "import torch; print(threading.active_count(), torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "1 False"
