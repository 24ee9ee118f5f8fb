"""Start a Python worker of Beam: the program that Flink runs.

In Beam's containers a program written in Go does this; Python's packages do not have it. Workers share the
environment of the command. The output of a worker goes to a log file, or to stderr if no folder is set for
it: Flink does not read the worker's stdout, and a full pipe would block it.
"""

import json
import logging
import os
import socket
import sys
import time

PYTHON, LOGS = "BEAM_ZOO_PYTHON", "BEAM_ZOO_WORKER_LOGS"
"""Environment variables: the Python of the workers, and the folder of their logs."""
SOCKETS = "BEAM_ZOO_SOCKETS"
"""Environment variable: the folder of a TaskManager's sockets. java/ServerFactory.java reads it too."""
SECONDS = 60
KILLED = 137


def main(argv: list[str] | None = None) -> int:
    """Run a worker, in this process or in one that `runners.flink.worker` forks; returns its exit code."""
    import argparse

    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    options = vars(parser.parse_known_args(argv)[0])
    if SOCKETS not in os.environ:  # on a Flink cluster that this program has not started
        begin(options)
        work(options)
        return 0
    with _connected(workers_socket()) as workers:
        workers.sendall(json.dumps(options).encode())
        code = workers.recv(1)
    return code[0] if code else KILLED


def _connected(path: str) -> socket.socket:
    """Connect to a Unix socket, as soon as a process listens there."""
    deadline = time.monotonic() + SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def workers_socket() -> str:
    """The path of the socket of `runners.flink.worker`."""
    return os.path.join(os.environ[SOCKETS], "workers")


def begin(options: dict[str, str]) -> None:
    """Redirect the output of this process to a log file.

    Args:
        options: the worker's `id`.
    """
    if folder := os.environ.get(LOGS):
        path = os.path.join(folder, f"worker-{os.uname().nodename}-{os.getpid()}.log")
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    else:
        os.dup2(2, 1)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    print(
        f"{time.strftime('%Y-%m-%d %H:%M:%S')} worker {options['id']} on {os.uname().nodename}, GPUs {gpus}",
        flush=True,
    )


def work(options: dict[str, str]) -> None:
    """Run Beam's worker in this process until it ends.

    Args:
        options: the worker's `id`, and its `provision_endpoint`, a gRPC target from which settings are read.
    """
    from apache_beam.runners.worker import sdk_worker_main

    from runners.best_effort_output import use_best_effort_output

    use_best_effort_output()  # before logging gets the streams
    logging.basicConfig(force=True)  # to the log file; Beam also sends log messages to Flink
    os.environ.update(settings(options))
    sdk_worker_main.main(sys.argv[:1])


def settings(options: dict[str, str]) -> dict[str, str]:
    """The environment variables from which Beam's worker reads its settings, as in Beam's containers.

    Args:
        options: see `work`.
    """
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2 as messages
    from apache_beam.portability.api import beam_provision_api_pb2_grpc as services
    from google.protobuf import json_format

    with grpc.insecure_channel(options["provision_endpoint"]) as channel:
        service = services.ProvisionServiceStub(channel)
        metadata = (("worker_id", options["id"]),)
        request = messages.GetProvisionInfoRequest()
        info = service.GetProvisionInfo(request, metadata=metadata, timeout=SECONDS).info
    return {
        "WORKER_ID": options["id"],
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "LOGGING_API_SERVICE_DESCRIPTOR": f'url: "{info.logging_endpoint.url}"',
        "CONTROL_API_SERVICE_DESCRIPTOR": f'url: "{info.control_endpoint.url}"',
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }


if __name__ == "__main__":
    sys.exit(main())
