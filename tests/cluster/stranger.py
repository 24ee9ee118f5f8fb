"""Another user of a node, who speaks Beam's protocols and Flink's: what do the services of a job give?

    python -m tests.cluster.stranger WANTED.json

prints what it got, as JSON: a text for each thing that it was given. WANTED has `grpc` (targets), `rest`
(ports of Flink's REST interface), `job` (Flink's id of the job) and `files` (that are not its own).
"""

import contextlib
import http.client
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from apache_beam.portability.api import beam_artifact_api_pb2 as artifacts
from apache_beam.portability.api import beam_artifact_api_pb2_grpc as artifact_services
from apache_beam.portability.api import beam_fn_api_pb2 as fn
from apache_beam.portability.api import beam_fn_api_pb2_grpc as fn_services
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.portability.api import beam_provision_api_pb2_grpc as provision_services
from apache_beam.portability.api import beam_runner_api_pb2 as beam

UID = 1001
SECONDS = 4
AT_ONCE = 16
WORKERS = ("stranger", "1-1")
"""Ids that it gives for its own: one of nobody's, and that of a TaskManager's first worker."""


def main() -> None:
    """Become the stranger, and try everything."""
    with open(sys.argv[1]) as file:
        wanted = json.load(file)
    os.setgroups([])
    os.setgid(UID)
    os.setuid(UID)
    os.environ["HOME"] = "/tmp"
    got: list[str] = []
    for path in wanted["files"]:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            got.append(f"{path}: {file.read(20)!r}")
    with futures.ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda target: list(_of_services(target, wanted["files"])), wanted["grpc"])
        got += [
            f"{target}: {each}"
            for target, found in zip(wanted["grpc"], answers, strict=True)
            for each in found
        ]
    for port in wanted["rest"]:
        got += [f"REST {port}: {each}" for each in _of_rest(port, wanted["job"])]
    print(json.dumps(got))


def _of_services(target: str, files: list[str]) -> Iterator[str]:
    """What an address gives that may be one of Beam's services."""
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(SECONDS)
        except grpc.FutureTimeoutError:
            return  # whatever is there does not speak gRPC with us
        for path in files:
            request = artifacts.GetArtifactRequest(
                artifact=beam.ArtifactInformation(
                    type_urn="beam:artifact:type:file:v1",
                    type_payload=beam.ArtifactFilePayload(path=path).SerializeToString(),
                    role_urn="beam:artifact:role:staging_to:v1",
                )
            )
            stub = artifact_services.ArtifactRetrievalServiceStub(channel)
            yield from _first(
                "artifact", lambda stub=stub, request=request: stub.GetArtifact(request, timeout=SECONDS)
            )
        for worker in WORKERS:
            yield from _as_worker(channel, worker)


def _as_worker(channel: grpc.Channel, worker: str) -> Iterator[str]:
    """What a worker would be given."""
    metadata = (("worker_id", worker),)
    asked = provision.GetProvisionInfoRequest()
    services = provision_services.ProvisionServiceStub(channel)
    yield from _first(
        "provision", lambda: iter([services.GetProvisionInfo(asked, metadata=metadata, timeout=SECONDS)])
    )
    streams: dict[str, Callable[..., Any]] = {
        "control": fn_services.BeamFnControlStub(channel).Control,
        "data": fn_services.BeamFnDataStub(channel).Data,
        "state": fn_services.BeamFnStateStub(channel).State,
        "logs": fn_services.BeamFnLoggingStub(channel).Logging,
    }
    first = {"state": fn.StateRequest(id="1", instruction_id="1", get=fn.StateGetRequest())}
    for name, method in streams.items():
        said = [first[name]] if name in first else []
        yield from _first(
            name,
            lambda method=method, said=said: method(_then_wait(said), metadata=metadata, timeout=SECONDS),
        )


def _then_wait(said: list[Any]) -> Iterator[Any]:
    """Requests of a stream that stays open."""
    yield from said
    time.sleep(SECONDS)


def _first(name: str, call: Callable[[], Iterator[Any]]) -> Iterator[str]:
    """A text if a call is answered, or left waiting for an answer; nothing if it is refused."""
    try:
        yield f"{name} gives {next(iter(call()))!r:.60}"
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            yield f"{name} lets us wait"
    except StopIteration:
        yield f"{name} takes us"


def _of_rest(port: int, job: str) -> Iterator[str]:
    """What Flink's REST interface gives without the job's key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for method, path in (
        ("GET", "/jobs"),
        ("GET", "/jobmanager/config"),
        ("POST", "/jars/upload"),
        ("PATCH", f"/jobs/{job}?mode=cancel"),
        ("DELETE", "/cluster"),
    ):
        for connection in (
            http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS),
            http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=context),
        ):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request(method, path)
                answer = connection.getresponse()
                if answer.status != http.client.MOVED_PERMANENTLY:  # to where the key is wanted
                    yield f"{method} {path} gives {answer.status}"


if __name__ == "__main__":
    main()
