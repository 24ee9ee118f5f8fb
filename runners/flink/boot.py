"""Start a Python worker of Beam, as Flink asks for it.

In Beam's containers a program written in Go does this; Python's packages do not hold it. Nothing is installed here:
workers share the environment of the command. What a worker prints goes to a file of its own: Flink leaves the pipe
that it starts it with unread, and a full pipe would block it.
"""

import argparse
import os
import sys
import time

PYTHON, LOGS = "BEAM_ZOO_PYTHON", "BEAM_ZOO_WORKER_LOGS"
"""Environment variables: the Python of the workers, and the folder of their logs."""
SOCKETS = "BEAM_ZOO_SOCKETS"
"""The same, of a TaskManager: where java/ServerFactory.java opens what workers connect to."""
WORKER = "runners.flink.worker"
SECONDS = 60


def main(argv: list[str] | None = None) -> None:
    """Become the worker."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    options, _ = parser.parse_known_args(argv)
    if folder := os.environ.get(LOGS):
        _print_to(os.path.join(folder, f"worker-{os.uname().nodename}-{os.getpid()}.log"))
    else:
        os.dup2(2, 1)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    print(
        f"{time.strftime('%Y-%m-%d %H:%M:%S')} worker {options.id} on {os.uname().nodename}, GPUs {gpus}",
        flush=True,
    )
    os.execve(sys.executable, [sys.executable, "-m", WORKER], environment(options))


def _print_to(path: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def environment(options: argparse.Namespace) -> dict[str, str]:
    """What Beam's worker reads its settings from: the environment variables of its containers.

    Args:
        options: the worker's `id`, and the `provision_endpoint` that tells the rest, as a target of gRPC.
    """
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2 as messages
    from apache_beam.portability.api import beam_provision_api_pb2_grpc as services
    from google.protobuf import json_format

    with grpc.insecure_channel(options.provision_endpoint) as channel:
        service = services.ProvisionServiceStub(channel)
        metadata = (("worker_id", options.id),)
        request = messages.GetProvisionInfoRequest()
        info = service.GetProvisionInfo(request, metadata=metadata, timeout=SECONDS).info
    return {
        **os.environ,
        "WORKER_ID": options.id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "LOGGING_API_SERVICE_DESCRIPTOR": f'url: "{info.logging_endpoint.url}"',
        "CONTROL_API_SERVICE_DESCRIPTOR": f'url: "{info.control_endpoint.url}"',
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }


if __name__ == "__main__":
    main()
