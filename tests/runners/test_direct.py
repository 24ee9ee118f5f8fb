"""The local runner listens on no port."""

import os
import socket
from pathlib import Path

import apache_beam as beam
import pytest

from pipelines import aggregate, audit, export, finish, predict, represent
from runners import direct


def own_ports() -> set[str]:
    """Addresses on which this process listens, as the kernel says."""
    own = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(link))
        except FileNotFoundError:  # of the listing itself
            continue
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()
    ]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


SEEN: list[tuple[int, set[str]]] = []


class Look(beam.DoFn):
    """Notes, in this process if it is there, which process it is in and where that listens."""

    def process(self, pair):
        from tests.runners import test_direct

        test_direct.SEEN.append((os.getpid(), own_ports()))


def test_ports_of_this_process_are_seen():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert f"0100007F:{server.getsockname()[1]:04X}" in own_ports()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--direct_running_mode=in_memory", "--direct_num_workers=1"],
        ["--direct_embed_docker_python"],
        ["--environment_type=LOOPBACK"],
        ["--environment_type=DOCKER", "--environment_config=some/image"],
        ["--environment_type=PROCESS", '--environment_config={"command": "/bin/false"}'],
        ["--environment_type=EXTERNAL", "--environment_config=localhost:1"],
        ["--environment_type=beam:env:harness_subprocess_python:v1"],
        ["--job_endpoint=embed"],
        ["--job_endpoint=localhost:1", "--artifact_endpoint=localhost:1", "--job_port=1"],
        ["--sdk_worker_parallelism=2", "--number_of_worker_harness_threads=2", "--sdk_container_image=image"],
        ["--prebuild_sdk_container_engine=local_docker", "--resource_hint=min_ram=1GB"],
        ['--beam_services={"some": "localhost:1"}', "--use_transform_service"],
        ["--streaming"],
    ],
)
def test_no_port_and_no_other_process(flags):
    """Whatever else is said: options of other runners come to nothing here."""
    before = own_ports()
    SEEN.clear()
    direct.run(lambda p: p | beam.Create([(1, 2)]) | beam.GroupByKey() | beam.ParDo(Look()), flags)
    ((process, ports),) = SEEN
    assert process == os.getpid()
    assert ports <= before


@pytest.mark.parametrize(
    "main, words",
    [
        (predict.main, []),
        (represent.main, []),
        (finish.main, ["out"]),
        (audit.main, ["out"]),
        (aggregate.main, []),
        (export.main, ["out"]),
    ],
)
@pytest.mark.parametrize("mode", ["multi_processing", "multi_threading"])
def test_several_processes_are_refused(main, words, mode, capsys):
    assert main([*words, f"--direct_running_mode={mode}", "--direct_num_workers=2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{mode} would listen on the network, without a password: leave it out" in line
    assert "torch uses all cores" in line and "python -m runners.slurm submit" in line
