"""What is lost, killed or cancelled: what goes on, what ends, and what is left."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from beam_zoo.storage.files import sha256
from runners.flink import install
from tests.cluster import slurm
from tests.cluster.compare import assert_same
from tests.cluster.conftest import CLEAR, SECONDS
from tests.waiting import wait_for

SLOW = ["--snippet_size", 4, "--passes", 10]
STORED = '--sdk_harness_log_level_overrides={"beam_zoo":"INFO"}'
TASKMANAGER = "TaskManagerRunner"


@pytest.fixture(scope="module")
def slow_direct(slow, catalogue, tmp_path_factory) -> Path:
    """The local runner's output of the same."""
    from pipelines import predict

    output = tmp_path_factory.mktemp("direct") / "output"
    words = ["--catalogue", catalogue, "--models", slow, "--output", output, *SLOW]
    assert predict.main([str(word) for word in words]) == 0
    return output


def test_lost_taskmanagers_and_a_lost_worker(submit, slow, slow_direct):
    """One that was killed, one that hangs, a killed worker: all made good; nothing stored is predicted again."""
    job = submit(["--nodes", 2], *SLOW, STORED, models=[slow])
    job.wait_for_parts(3)
    job.kill(TASKMANAGER)
    wait_for(lambda: "it is started again" in job.log(), CLEAR, job.log)
    before = job.parts()
    job.wait_for_parts(len(before) + 3)
    os.kill(job.workers()[-1], signal.SIGKILL)
    wait_for(lambda: "Flink goes on after a failure" in job.log(), CLEAR, job.log)
    job.wait_for_parts(len(before) + 6)
    job.kill(TASKMANAGER, signal.SIGSTOP)
    wait_for(lambda: "does not answer any more: it is ended" in job.log(), 60, job.log)
    assert job.wait() == "COMPLETED", job.log()
    assert before.items() <= job.parts().items()
    stored = [
        re.findall(r"snippet (\d+) is stored", log.read_text()) for log in job.folder.glob("worker-*.log")
    ]
    numbers = [int(number) for each in stored for number in each]
    assert sorted(set(numbers)) == list(range(len(job.parts())))
    # The worker of the TaskManager that hung went on with what it had in hand, and was second, or first.
    assert len(numbers) <= len(set(numbers)) + 2, numbers
    assert_same(slow_direct, job.output)
    job.assert_nothing_left()


def test_a_cut_link(submit, slow):
    """One that is down for a moment is nothing; one that stays down ends the job with a line, within a minute."""
    job = submit(["--nodes", 2], "--snippet_size", 4, "--passes", 30, models=[slow])
    job.wait_for_parts(1)
    with slurm.cut_off("n2"):
        time.sleep(8)
    before = job.parts()
    job.wait_for_parts(len(before) + 4)
    assert "is ended" not in job.log() and "goes on after a failure" not in job.log()
    begin = time.monotonic()
    with slurm.cut_off("n2"):
        wait_for(lambda: "error: " in job.log(), 60, job.log)
    assert time.monotonic() - begin < 60
    assert "error: the host of TaskManager n2-0 cannot be reached on the network any more" in job.log()
    assert job.wait(CLEAR) in ("FAILED", "NODE_FAIL")
    assert before.items() <= job.parts().items()
    for left in Path(os.environ["TMPDIR"]).glob(f"beam-zoo-{job.id}-n2-*"):  # Slurm killed what was there
        shutil.rmtree(left)
    job.assert_nothing_left()


def test_a_killed_driver(submit, slow, slurm_command):
    """Slurm ends all the rest; the key goes when the output's next job is submitted."""
    job = submit(["--nodes", 2], *SLOW, models=[slow])
    job.wait_for_parts(1)
    job.kill("runners.slurm.job --flink")
    assert job.wait(CLEAR) == "FAILED"
    wait_for(lambda: not job.processes(), CLEAR, lambda: str(job.processes()))
    assert (job.folder / "private").exists()
    again = submit(["--engine", "array", "--shared_nodes", "--hold"], *SLOW, models=[slow], output=job.output)
    assert not (job.folder / "private").exists()
    assert slurm_command("cancel", again.id)[0] == 0
    for left in Path(os.environ["TMPDIR"]).glob("beam-zoo-*"):  # nobody was there to remove it
        shutil.rmtree(left)


def test_cancelled_at_half_then_requeued(submit, slow, slow_direct, slurm_command):
    """A job that is cancelled leaves nothing running; the same submission, and a requeued job, go on."""
    job = submit(["--nodes", 2], *SLOW, models=[slow])
    job.wait_for_parts(12)
    code, out, _ = slurm_command("status", job.id)
    assert code == 0 and f"job {job.id} (flink): RUNNING on n[1-2]" in out
    assert re.search(r"galaxies: \d+ of 128 stored, [\d.]+ galaxies/s, \d+ (s|min) left", out), out
    begin = time.monotonic()
    assert slurm_command("cancel", job.id)[0] == 0
    job.wait(CLEAR)
    assert time.monotonic() - begin < CLEAR
    assert "the job was cancelled: submit the same command again to go on" in job.log()
    assert job.last_line().startswith("stopped: what is stored stays")
    job.assert_nothing_left()
    before = job.parts()
    assert 12 <= len(before) < 32

    again = submit(["--nodes", 2], *SLOW, models=[slow], output=job.output)
    again.wait_for_parts(len(before) + 3)
    subprocess.run(["scontrol", "requeue", again.id], check=True)
    wait_for(lambda: again.field("Restarts") == "1", SECONDS, again.log)
    wait_for(lambda: again.field("JobState") == "PENDING", SECONDS, again.log)
    subprocess.run(["scontrol", "update", f"JobId={again.id}", "StartTime=now"], check=True)
    assert again.wait() == "COMPLETED", again.log()
    assert before.items() <= again.parts().items()
    assert again.manifest()["rows_reused"] >= 4 * (len(before) + 3)
    assert_same(slow_direct, job.output)
    again.assert_nothing_left()


def test_the_time_limit(submit, slow):
    """Slurm's warning ends the job in order, with the reason."""
    job = submit(["--nodes", 2], "--snippet_size", 4, "--passes", 60, models=[slow])
    job.wait_for_parts(1)
    subprocess.run(["scontrol", "update", f"JobId={job.id}", "TimeLimit=1"], check=True)
    assert job.wait() in ("FAILED", "TIMEOUT")
    assert "the time limit is near: submit the same command again to go on" in job.log()
    job.assert_nothing_left()


@pytest.fixture
def broken_flink(flink, tmp_path):
    """A copy of the installation in which one file is another, and passes for what was installed."""

    def break_file(name: str, text: str) -> Path:
        copy = tmp_path / "flink"
        shutil.copytree(flink, copy, copy_function=os.link)
        mode = (copy / name).stat().st_mode
        for changed in (name, install.MARK):
            (copy / changed).unlink()
        (copy / name).write_text(text)
        (copy / name).chmod(mode)
        mark = json.loads((flink / install.MARK).read_text())
        mark["files"][name] = sha256(text.encode())
        (copy / install.MARK).write_text(json.dumps(mark))
        return copy

    return break_file


def test_a_worker_that_cannot_start(submit, broken_flink):
    """The job ends and shows what the worker said."""
    text = '#!/bin/sh\necho "no such environment" > "$BEAM_ZOO_WORKER_LOGS/worker-$$.log"; exit 3\n'
    job = submit(["--nodes", 2], flink=broken_flink("boot", text))
    wait_for(lambda: list(job.folder.glob("worker-*.log")), SECONDS, job.log)
    begin = time.monotonic()
    assert job.wait(CLEAR) == "FAILED" and time.monotonic() - begin < CLEAR
    assert job.last_line().startswith("error: a Python worker cannot start: no such environment; see ")
    job.assert_nothing_left()


def test_a_full_disk(submit, slow, tmp_path):
    """The job ends with the code of a full disk, also where its logs are on that disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", disk], check=True)
    try:
        job = submit(["--nodes", 2], *SLOW, models=[slow], output=disk / "output")
        job.wait_for_parts(1)
        with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        assert job.wait(90) == "FAILED" and job.field("ExitCode") == "4:0", job.log()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_taskmanager_that_does_not_come(submit, broken_flink, flink):
    """The job names it, and ends."""
    script = (flink / "flink" / "bin" / "taskmanager.sh").read_text()
    slow_start = script.replace("USAGE=", '[ "$SLURMD_NODENAME" = n2 ] && exec sleep 600\nUSAGE=', 1)
    assert slow_start != script
    flink = broken_flink("flink/bin/taskmanager.sh", slow_start)
    job = submit(["--nodes", 2, "--registration_seconds", 40], flink=flink)
    assert job.wait() == "FAILED"
    assert "1 of 2 TaskManagers did not come in 40 s: n2-0; see their logs" in job.last_line()
    job.assert_nothing_left()
