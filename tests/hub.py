"""A small Hugging Face hub on 127.0.0.1, which the real client talks to."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class Hub:
    """What the server has, and what it was asked for.

    Attributes:
        url: where it listens.
        repos: owner/name -> its commits, the newest last: (commit, file name -> bytes).
        requests: method and path of every request so far.
        stalls: whether it sends no file, and no error either.
    """

    url: str = ""
    repos: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    stalls: bool = False

    def push(self, repo: str, files: dict[str, bytes | Path | dict]) -> str:
        """Another commit of a repository, with these files only; returns its name."""
        content = {name: _bytes(value) for name, value in files.items()}
        commits = self.repos.setdefault(repo, [])
        commit = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits.append((commit, content))
        return commit

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit by its name, or the newest."""
        commits = self.repos.get(repo, [])
        if revision == "main" and commits:
            return commits[-1]
        return next((commit for commit in commits if commit[0] == revision), None)


def _bytes(value: bytes | Path | dict) -> bytes:
    if isinstance(value, Path):
        return value.read_bytes()
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """The hub, while the context lasts."""
    hub, done = Hub(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Silent."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0].strip("/")
            if path.startswith("api/models/"):
                repo, _, revision = path.removeprefix("api/models/").partition("/revision/")
                found = hub.find(repo, revision or "main")
                if found is None:
                    return self._missing("Revision" if repo in hub.repos else "Repo")
                siblings = [{"rfilename": name} for name in found[1]]
                info = {"id": repo, "modelId": repo, "sha": found[0], "siblings": siblings, "tags": []}
                return self._send(json.dumps(info).encode(), {"Content-Type": "application/json"}, with_body)
            if hub.stalls:
                done.wait()
                return None
            repo, _, rest = path.partition("/resolve/")
            revision, _, name = rest.partition("/")
            found = hub.find(repo, revision)
            if found is None:
                return self._missing("Revision" if repo in hub.repos else "Repo")
            commit, files = found
            if name not in files:
                return self._missing("Entry", {"X-Repo-Commit": commit})
            tag = hashlib.sha256(files[name]).hexdigest()
            self._send(files[name], {"ETag": f'"{tag}"', "X-Repo-Commit": commit}, with_body)

        def _missing(self, what: str, headers: dict[str, str] | None = None) -> None:
            self._send(b"", {"X-Error-Code": f"{what}NotFound", **(headers or {})}, True, status=404)

        def _send(self, body: bytes, headers: dict[str, str], with_body: bool, status: int = 200) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        done.set()
        server.shutdown()
        server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Point this process's hub client at a server and at a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
