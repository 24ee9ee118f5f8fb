"""A server on loopback that plays what of Google a submission to Dataflow talks to, besides storage.

Jobs, their messages and metrics, as the REST interface of Dataflow has them; the metadata server, which hands
out credentials; and an image registry. The client is Beam's DataflowRunner, unchanged.
"""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[2]
PROJECT, REGION = "test-project", "europe-west4"
_METADATA = {
    "/computeMetadata/v1/project/project-id": PROJECT,
    "/computeMetadata/v1/instance/service-accounts/default/token": {
        "access_token": "a-token",
        "expires_in": 3600,
        "token_type": "Bearer",
    },
    "/computeMetadata/v1/instance/service-accounts/default/": {
        "email": "workers@test-project.iam.gserviceaccount.com",
        "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
    },
    "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
}


@dataclasses.dataclass
class Google:
    """What it was asked, and what it is to say.

    Attributes:
        port: that it listens on.
        jobs: every job that was created, as its JSON.
        images: name:tag -> labels of the images in the registry.
        states: that a job goes through, one for every time that it is asked for; the last stays.
        messages: of every job, as (importance, text).
        refusal: status and text for a job that is not taken, or None.
        execute: whether a job's staged pipeline is run, by Beam's local portable runner in a process of its
            own.
        cancelled: ids of the jobs that were cancelled.
        wants_token: whether the registry shows its images to those only who have asked for a token.
    """

    port: int = 0
    jobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    images: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    states: list[str] = dataclasses.field(default_factory=lambda: ["RUNNING", "DONE"])
    messages: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    refusal: tuple[int, str] | None = None
    execute: bool = False
    cancelled: list[str] = dataclasses.field(default_factory=list)
    asked: int = 0
    wants_token: bool = False
    running: subprocess.Popen | None = None

    @property
    def registry(self) -> str:
        """Host of the image registry."""
        return f"localhost:{self.port}"

    def flags(self, image: str = "zoo/beam-zoo:gpu") -> list[str]:
        """Options of a submission to this server."""
        return [
            "--runner=DataflowRunner",
            f"--project={PROJECT}",
            f"--region={REGION}",
            f"--dataflow_endpoint=http://localhost:{self.port}",
            f"--sdk_container_image={self.registry}/{image}",
        ]

    def environment(self) -> dict[str, str]:
        """Where the client finds the metadata server."""
        address = f"127.0.0.1:{self.port}"
        return {"GCE_METADATA_HOST": address, "GCE_METADATA_IP": address, "GCE_METADATA_ROOT": address}

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        self.jobs.append(job)
        self.asked = 0
        if self.execute:
            words = [sys.executable, "-m", "tests.cloud.execute", _options(job)["pipelineUrl"]]
            # Somewhere else, as a worker is: nothing of the submitting folder is in reach by a relative path.
            self.running = subprocess.Popen(
                words, cwd="/", env=_elsewhere(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        return self._job("PENDING")

    def job(self) -> dict[str, Any]:
        """The last job, in the state that it has by now."""
        if self.cancelled:
            return self._job("CANCELLED")
        if self.running is None:
            state = self.states[min(self.asked, len(self.states) - 1)]
            self.asked += 1
            return self._job(state)
        code = self.running.poll()
        if code is None:
            return self._job("RUNNING")
        if code and not self.messages:
            assert self.running.stdout is not None
            self.messages.append(("ERROR", self.running.stdout.read().decode()[-40_000:]))
        return self._job("FAILED" if code else "DONE")

    def _job(self, state: str) -> dict[str, Any]:
        job = self.jobs[-1]
        known = {name: job[name] for name in ("name", "clientRequestId", "type") if name in job}
        number = len(self.jobs)
        return {
            **known,
            "id": f"job-{number}",
            "projectId": PROJECT,
            "location": REGION,
            "currentState": f"JOB_STATE_{state}",
        }


def _elsewhere() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(REPO)}


def _options(job: dict[str, Any]) -> dict[str, Any]:
    return job["environment"]["sdkPipelineOptions"]["options"]


@contextlib.contextmanager
def serving() -> Iterator[Google]:
    """A running server."""
    state = Google()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/" or path in ("/computeMetadata/v1", "/computeMetadata/v1/"):
                self._answer({}, {"Metadata-Flavor": "Google"})
            elif path in _METADATA:
                self._answer(_METADATA[path], {"Metadata-Flavor": "Google"})
            elif path == "/token":
                self._answer({"token": "anybody"} if "service=zoo" in self.path else {})
            elif path.startswith("/v2/") and state.wants_token and not self.headers.get("Authorization"):
                where = f'Bearer realm="http://localhost:{state.port}/token",service="zoo",scope="pull"'
                self._answer({}, {"WWW-Authenticate": where}, status=401)
            elif path.startswith("/v2/"):
                self._registry(path.removeprefix("/v2/"))
            elif re.fullmatch(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs/job-\d+/messages", path):
                found = [
                    {
                        "id": str(n),
                        "time": f"2026-01-01T00:00:{n:02d}Z",
                        "messageImportance": f"JOB_MESSAGE_{kind}",
                        "messageText": text,
                    }
                    for n, (kind, text) in enumerate(state.messages)
                ]
                self._answer({"jobMessages": found})
            elif re.fullmatch(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs/job-\d+/metrics", path):
                self._answer({"metrics": []})
            elif re.fullmatch(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs/job-\d+", path):
                self._answer(state.job())
            else:
                self._answer({"error": {"code": 404, "message": self.path}}, status=404)

        def do_POST(self) -> None:
            content = json.loads(self._body() or b"{}")
            if not self.path.startswith(f"/v1b3/projects/{PROJECT}/locations/{REGION}/jobs"):
                self._answer({"error": {"code": 404, "message": self.path}}, status=404)
            elif state.refusal is not None:
                code, text = state.refusal
                self._answer({"error": {"code": code, "message": text}}, status=code)
            else:
                self._answer(state.create(content))

        def do_PUT(self) -> None:
            content = json.loads(self._body())
            if content.get("requestedState") in (5, "JOB_STATE_CANCELLED"):
                state.cancelled.append(self.path.partition("?")[0].rpartition("/")[2])
            self._answer(state.job())

        def _registry(self, path: str) -> None:
            name, kind, version = re.fullmatch(r"(.+)/(manifests|blobs)/(.+)", path).groups()
            for image, labels in state.images.items():
                config = json.dumps(
                    {"os": "linux", "architecture": "amd64", "config": {"Labels": labels}}
                ).encode()
                digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
                manifest = {
                    "schemaVersion": 2,
                    "config": {"digest": digest, "size": len(config)},
                    "layers": [],
                }
                if kind == "blobs" and version == digest:
                    return self._answer(json.loads(config))
                if kind == "manifests" and version == "sha256:of-amd64" and image.startswith(f"{name}:"):
                    return self._answer(manifest)
                if kind == "manifests" and image == f"{name}:{version}":
                    platform = {"os": "linux", "architecture": "amd64"}
                    index = {"manifests": [{"digest": "sha256:of-amd64", "platform": platform}]}
                    return self._answer(index if "index" in labels else manifest)
            self._answer({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, content: Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            kind = "text/plain" if isinstance(content, str) else "application/json"
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(data)),
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        if state.running is not None and state.running.poll() is None:
            state.running.kill()
