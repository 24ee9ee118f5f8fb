"""Who else reaches a job: what listens, where, and what it answers to a stranger."""

import http.client
import os
import re
import socket
import ssl
import stat
from pathlib import Path

import yaml

from runners.flink.keys import Key
from tests.cluster.conftest import CLEAR, Job

LISTENING = "0A"
LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process listens."""
    sockets = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
        if found:
            sockets.add(found[1])
    answer = set()
    for family, file in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/{pid}/net/{file}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in sockets:
                address, _, port = fields[1].partition(":")
                words = [address[i : i + 8] for i in range(0, len(address), 8)]
                packed = b"".join(bytes.fromhex(word)[::-1] for word in words)
                answer.add((socket.inet_ntop(family, packed), int(port, 16)))
    return answer


def speaks(port: int, context: ssl.SSLContext) -> str:
    """What comes of a TLS connection: `welcome`, `refused`, or `other` where the port does not speak TLS."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as raw, context.wrap_socket(raw) as secure:
            secure.settimeout(2)
            try:
                secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
                secure.recv(1)
            except TimeoutError:
                pass  # it waits for more: we are in
            return "welcome"
    except ssl.SSLError as error:
        return "other" if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE") else "refused"
    except ConnectionError:
        return "refused"


def test_strangers_and_a_lost_jobmanager(submit, slow):
    """Nothing listens on all interfaces; Flink's ports want the job's key; without a JobManager the job says so, and ends."""
    job = submit(["--nodes", 2], "--snippet_size", 4, "--passes", 20, models=[slow])
    job.wait_for_parts(2)
    settings = yaml.safe_load((job.folder / "private" / "conf" / "config.yaml").read_text())
    theirs = {line: listening(pid) for pid, line in _own_processes(job).items()}
    found = {address for ports in theirs.values() for address in ports}
    # In this cluster the nodes' own addresses are on loopback too.
    assert {address for address, _ in found} <= LOOPBACK

    key = Key(job.folder / "private" / "job.p12", job.folder / "private" / "job.pem", "")
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with_key = {port: speaks(port, key.context()) for _, port in found}
    without = {port: speaks(port, stranger) for _, port in found}
    of_flink = [port for port, answer in with_key.items() if answer == "welcome"]
    assert {settings["jobmanager.rpc.port"], settings["rest.port"]} <= set(of_flink)
    assert len(of_flink) >= 8, (
        with_key
    )  # RPC, blobs, REST and metrics; RPC, data and metrics of two TaskManagers
    assert {without[port] for port in of_flink} == {"refused"}
    # The others are those of Beam's workers: six of each TaskManager, on loopback.
    others = [port for port in with_key if port not in of_flink]
    assert len(others) >= 12 and {with_key[port] for port in others} == {"other"}, with_key

    plain = http.client.HTTPConnection("127.0.0.1", settings["rest.port"], timeout=5)
    plain.request("GET", "/overview")
    answer = plain.getresponse()
    assert answer.status == 301 and answer.headers["Location"].startswith(
        "https://"
    )  # where the key is wanted
    for path in [job.folder, job.folder / "private"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in [key.store, key.pem, job.folder / "private" / "conf" / "config.yaml"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    stored = job.parts()
    job.kill("StandaloneApplicationClusterEntryPoint")
    assert job.wait(CLEAR) == "FAILED" and job.field("ExitCode") == "1:0"
    assert job.last_line().startswith("error: Flink's JobManager ended with exit code"), job.log()
    assert "the same command goes on" in job.last_line()
    assert stored.items() <= job.parts().items()
    job.assert_nothing_left()


def _own_processes(job: Job) -> dict[int, str]:
    """Processes of the job, without Slurm's own."""
    lines = {pid: " ".join(words) for pid, words in job.processes().items()}
    return {pid: line for pid, line in lines.items() if not line.startswith(("srun", "slurmstepd"))}
