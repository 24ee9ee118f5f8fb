"""A Flink cluster that does not answer as it should; a real one is in tests/cluster."""

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from beam_zoo.errors import RunFailed, UserError
from runners.flink import submission

FLAGS = ["--runner=FlinkRunner", "--environment_type=PROCESS"]


class Answers(http.server.ThreadingHTTPServer):
    """Gives its answers one after the other, the last of them for ever: a status and what is sent as JSON."""

    answers: list[tuple[int, object]]
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers
        status, content = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def url(server: Answers) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_silent_for_a_moment(server, monkeypatch):
    """As while it chooses another JobManager."""
    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    server.answers = [(503, {}), (500, {"errors": ["no leader"]}), (200, {"state": "RUNNING"})]
    assert submission._Cluster(url(server)).state("abc") == "RUNNING"
    assert server.asked == ["/v1/jobs/abc"] * 3


def test_silent_for_good(server, monkeypatch):
    """The line names the job, which nobody watches any more."""
    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(submission, "SILENCE_SECONDS", 0.1)
    server.answers = [(503, {})]
    with pytest.raises(RunFailed, match="its job abc may go on; end it there"):
        submission._Cluster(url(server)).state("abc")


def test_no_flink_cluster(server):
    """Another service that answers with JSON."""
    server.answers = [(200, {"version": 1})]
    with pytest.raises(UserError, match="is no Flink cluster"):
        submission.run(lambda pipeline: None, [*FLAGS, f"--flink_master={url(server)}"])
    assert server.asked == ["/v1/config"]
