"""Who else reaches a job: what listens, where, and what it gives to a stranger."""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import yaml
from apache_beam.portability.api import beam_artifact_api_pb2_grpc as artifact_services
from apache_beam.portability.api import beam_provision_api_pb2 as messages
from apache_beam.portability.api import beam_provision_api_pb2_grpc as provision_services
from apache_beam.runners.portability import artifact_service

from runners.flink.keys import Key
from tests.cluster import slurm
from tests.cluster.conftest import CLEAR

LOOPBACK = "127.0.0.1"


def listening(node: str) -> dict[int, set[tuple[str, int]]]:
    """Addresses and ports on which each process of a node listens, TCP and UDP, as `ss` has them."""
    done = subprocess.run(
        [*slurm.inside(node), "ss", "-H", "-l", "-n", "-t", "-u", "-p"],
        capture_output=True,
        text=True,
        check=True,
    )
    return _by_process(done.stdout)


def _by_process(text: str) -> dict[int, set[tuple[str, int]]]:
    found: dict[int, set[tuple[str, int]]] = {}
    for line in text.splitlines():
        address, _, port = line.split()[4].rpartition(":")
        for pid in re.findall(r"pid=(\d+)", line):
            found.setdefault(int(pid), set()).add((re.sub(r"^\[(::ffff:)?|\]$|%.*", "", address), int(port)))
    return found


def stranger(words: list[str], folder: Path, **wanted: object) -> list[str]:
    """What another user is given.

    Args:
        words: those before the command, such as those that put it on a node.
        folder: for a file.
        wanted: see `tests.cluster.stranger`.
    """
    file = folder / "wanted.json"
    file.write_text(json.dumps({"grpc": [], "rest": [], "job": "", "files": [], **wanted}))
    command = [*words, sys.executable, "-m", "tests.cluster.stranger", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class Provision(provision_services.ProvisionServiceServicer):
    """Tells anybody."""

    def GetProvisionInfo(self, request, context):
        return messages.GetProvisionInfoResponse()


@contextlib.contextmanager
def open_to_all() -> Iterator[int]:
    """The port of services as Beam opens them by itself, but on loopback."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service = artifact_service.ArtifactRetrievalService(
        artifact_service.BeamFilesystemHandler("").file_reader
    )
    artifact_services.add_ArtifactRetrievalServiceServicer_to_server(service, server)
    provision_services.add_ProvisionServiceServicer_to_server(Provision(), server)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    yield port
    server.stop(0)


@pytest.fixture
def secret(tmp_path) -> Path:
    """A file of its owner's alone."""
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text("of its owner alone")
    return path


def test_the_stranger_knows_how(secret, tmp_path):
    """Where Beam's services are open to all, the stranger gets everything: the other tests mean something."""
    tmp_path.chmod(0o755)
    with open_to_all() as port:
        got = stranger([], tmp_path, grpc=[f"{LOOPBACK}:{port}"], files=[str(secret)])
    assert any("artifact gives" in each and "of its owner alone" in each for each in got)
    assert any("provision gives" in each for each in got)
    assert not any(each.startswith(str(secret)) for each in got)  # the file itself is closed to it


def test_strangers(submit, slow, secret, tmp_path):
    """On no port and no socket of a job, on neither node, a stranger is given anything; the job ends well."""
    job = submit(
        ["--nodes", 2, "--shared_nodes", "--mem", "8000"], "--snippet_size", 4, "--passes", 30, models=[slow]
    )
    job.wait_for_parts(2)
    private = job.folder / "private"
    settings = yaml.safe_load((private / "conf" / "config.yaml").read_text())
    rest, rpc = settings["rest.port"], settings["jobmanager.rpc.port"]
    addresses = {node: slurm.address(node) for node in slurm.NODES}
    ours = job.processes()
    steps = {pid for pid, words in ours.items() if not words[0].endswith(("srun", "slurmstepd"))}

    ports = {node: listening(node) for node in slurm.NODES}
    for node, address in addresses.items():
        found = {place for pid, places in ports[node].items() if pid in steps for place in places}
        # Ports of Flink at the node's own address, and its REST interface.
        assert {each for each, _ in found} <= {address, LOOPBACK}
        assert {port for each, port in found if each == LOOPBACK} == ({rest} if node == "n1" else set())
        assert len(found) >= (7 if node == "n1" else 3), found
    assert (addresses["n1"], rpc) in {place for places in ports["n1"].values() for place in places}

    sockets = [str(path) for path in Path(os.environ["TMPDIR"]).glob(f"beam-zoo-{job.id}-*/s/*")]
    # Of each TaskManager: what forks workers, and Beam's six services.
    assert len(sockets) >= 14 and all(stat.S_ISSOCK(os.lstat(path).st_mode) for path in sockets)
    (job_id,) = {
        found[1] for words in ours.values() if (found := re.search(r"--job-id (\w{32})", " ".join(words)))
    }
    files = [
        str(secret),
        *map(str, (private / "job.pem", private / "job.p12", private / "conf" / "config.yaml")),
    ]
    files += [f"/proc/{pid}/environ" for pid in steps] + list(map(str, job.folder.glob("worker-*.log")))
    for node in slurm.NODES:
        theirs = {place for pid, places in ports[node].items() if pid in ours for place in places}
        hosts = {f"{LOOPBACK if each in ('*', '0.0.0.0', '') else each}:{port}" for each, port in theirs}
        targets = [*sorted(hosts), *(f"unix://{path}" for path in sockets)]
        reachable = [rest] if node == "n1" else []
        got = stranger(slurm.inside(node), tmp_path, grpc=targets, rest=reachable, job=job_id, files=files)
        assert got == [], node
    assert job.field("JobState") == "RUNNING"

    lines = [" ".join(words) for words in job.processes().values()]
    assert not [line for line in lines if settings["security.ssl.rest.key-password"] in line]
    for path in [job.folder, private, *(Path(each).parent for each in sockets)]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in [private / "job.pem", private / "job.p12", private / "conf" / "config.yaml"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert job.wait() == "COMPLETED", job.log()
    job.assert_nothing_left()


def test_the_key_opens_flink(submit, slow, tmp_path):
    """Who holds it is let in, by TLS alone; without its JobManager the job says so, and ends."""
    job = submit(["--nodes", 2], "--snippet_size", 4, "--passes", 20, models=[slow])
    job.wait_for_parts(2)
    settings = yaml.safe_load((job.folder / "private" / "conf" / "config.yaml").read_text())
    pem = job.folder / "private" / "job.pem"
    url = f"https://{LOOPBACK}:{settings['rest.port']}/overview"
    curl = [sys.executable, "-c", ASK, url, str(pem)]
    done = subprocess.run([*slurm.inside("n1"), *curl], capture_output=True, text=True)
    assert json.loads(done.stdout)["taskmanagers"] == 2, done.stderr

    stored = job.parts()
    job.kill("StandaloneApplicationClusterEntryPoint")
    assert job.wait(CLEAR) == "FAILED" and job.field("ExitCode") == "1:0"
    assert job.last_line().startswith("error: Flink's JobManager ended with exit code"), job.log()
    assert "the same command goes on" in job.last_line()
    assert stored.items() <= job.parts().items()
    job.assert_nothing_left()


ASK = f"""
import pathlib, sys, urllib.request
from {Key.__module__} import Key
key = Key(None, pathlib.Path(sys.argv[2]), "")
print(urllib.request.urlopen(sys.argv[1], context=key.context()).read().decode())
"""


def test_a_local_run_listens_on_nothing(catalogue, slow, tmp_path):
    """From its start to its end, neither on a port nor on a Unix socket without a folder of its own."""
    words = [sys.executable, "-m", "pipelines.predict", "--catalogue", catalogue, "--models", slow]
    words += ["--output", tmp_path / "out", "--snippet_size", "16", "--passes", "4"]
    process = subprocess.Popen(
        [str(word) for word in words], stderr=subprocess.DEVNULL, start_new_session=True
    )
    looks = 0
    try:
        while process.poll() is None:
            shown = subprocess.run(
                ["ss", "-H", "-l", "-n", "-t", "-u", "-x", "-p"], capture_output=True, text=True, check=True
            ).stdout
            group = subprocess.run(
                ["pgrep", "-g", str(process.pid)], capture_output=True, text=True
            ).stdout.split()
            theirs = [line for line in shown.splitlines() if set(re.findall(r"pid=(\d+)", line)) & set(group)]
            assert theirs == []
            looks += (tmp_path / "out" / "samples").exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0 and looks > 3
