"""What starts a worker, against a real provision service of Beam's."""

import argparse
import os
import subprocess
import sys
import time
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


def test_environment(endpoint, monkeypatch):
    """Beam's own worker reads its settings from it."""
    from apache_beam.runners.worker import sdk_worker_main

    made = boot.environment(argparse.Namespace(id="1-1", provision_endpoint=endpoint))
    assert made["WORKER_ID"] == "1-1" and made["RUNNER_CAPABILITIES"] == "one two"
    assert made["LOGGING_API_SERVICE_DESCRIPTOR"] == 'url: "127.0.0.1:1"'
    assert made["CONTROL_API_SERVICE_DESCRIPTOR"] == 'url: "127.0.0.1:2"'
    assert made["PATH"] == os.environ["PATH"]
    read = sdk_worker_main._load_pipeline_options(made["PIPELINE_OPTIONS"])
    assert PipelineOptions.from_dictionary(read).get_all_options()["job_name"] == "galaxies"


def test_a_log_of_its_own(endpoint, tmp_path):
    """What the worker prints is in a file, and nothing in the pipe that Flink does not read."""
    words = [sys.executable, "-m", "runners.flink.boot", "--id=1-1", f"--provision_endpoint={endpoint}"]
    environment = {**os.environ, boot.LOGS: str(tmp_path), "CUDA_VISIBLE_DEVICES": "3"}
    process = subprocess.Popen(
        [*words, "--semi_persist_dir=/tmp"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    host = os.uname().nodename
    deadline = time.monotonic() + 60
    while boot.WORKER not in Path(f"/proc/{process.pid}/cmdline").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()  # it waits for endpoints at which nobody is
    assert process.communicate()[0] == b""
    (log,) = tmp_path.glob(f"worker-{host}-{process.pid}.log")
    assert log.read_text().splitlines()[0].endswith(f"worker 1-1 on {host}, GPUs 3")
