"""A bucket of fake-gcs-server on loopback: its objects, by Google's client, and a log of every request."""

import contextlib
import dataclasses
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from beam_zoo.storage import gcs
from tests.waiting import wait_for

PROGRAM = Path(sys.executable).parent / "fake-gcs-server"
_REQUEST = re.compile(r'\\"(GET|POST|PUT|DELETE|PATCH) (\S+) HTTP/[\d.]+\\" (\d+)')


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: of its API.
        log: file with a line for every request.
        process: its id.
    """

    url: str
    log: Path
    process: int


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server that keeps objects in memory and ends with the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    log, url = folder / "requests.log", f"http://127.0.0.1:{port}"
    options = {"scheme": "http", "host": "127.0.0.1", "port": port, "backend": "memory"}
    options |= {"public-host": f"127.0.0.1:{port}", "external-url": url}
    words = [str(PROGRAM), *(word for name, value in options.items() for word in (f"-{name}", str(value)))]
    with open(log, "wb") as file, subprocess.Popen(words, stdout=file, stderr=file) as process:
        try:
            wait_for(lambda: _answers(port), 10, log.read_text)
            yield Server(url, log, process.pid)
        finally:
            process.kill()


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A bucket of its own for a test.

    Attributes:
        name: of the bucket.
        server: that it is on.
        start: length of the server's log when the bucket was made.
    """

    name: str
    server: Server
    start: int

    def path(self, *names: str) -> str:
        """`gs://bucket/a/b`."""
        return "/".join((f"gs://{self.name}", *names))

    def upload(self, folder: Path, into: str) -> str:
        """Every file of a local folder; the path of the folder in the bucket."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = self.path(into, str(file.relative_to(folder)))
                gcs.write(name, file.read_bytes(), replace=True)
        return self.path(into)

    def content(self, folder: str) -> dict[str, bytes]:
        """Every object below a folder, by its name there."""
        return {name: gcs.read(self.path(folder, name)) for name in gcs.walk(self.path(folder))}

    def requests(self) -> list[tuple[str, str, dict[str, str], int]]:
        """Method, path, query and status of every request to this bucket so far."""
        text = self.server.log.read_bytes()[self.start :].decode()
        found = []
        for method, target, status in _REQUEST.findall(text):
            parts = urlsplit(target)
            if f"/b/{self.name}" in parts.path:
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                found.append((method, parts.path, query, int(status)))
        return found

    def listings(self) -> list[str]:
        """The prefix of every list that was asked for."""
        end = f"/b/{self.name}/o"
        found = [(query, path) for method, path, query, _ in self.requests() if method == "GET"]
        return [query.get("prefix", "") for query, path in found if path.endswith(end)]


def new(server: Server) -> Bucket:
    """An empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    start = server.log.stat().st_size
    gcs._client().create_bucket(name)
    return Bucket(name, server, start)
