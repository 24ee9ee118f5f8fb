"""Jobs that lose processes, or that are cancelled and submitted again: they end with the same tables."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.compare import assert_same
from tests.cluster.conftest import CLEAR, SECONDS, SLOW, predict_here
from tests.waiting import wait_for

STORED = '--sdk_harness_log_level_overrides={"beam_zoo":"INFO"}'
TASKMANAGER = "TaskManagerRunner"


@pytest.fixture(scope="module")
def slow_direct(slow, catalogue, tmp_path_factory) -> Path:
    """The local runner's output of the same."""
    output = tmp_path_factory.mktemp("direct") / "output"
    predict_here(catalogue, [slow], output, *SLOW)
    return output


def test_lost_taskmanagers_and_a_lost_worker(submit, slow, slow_direct):
    """One that was killed, one that hangs, a killed worker: all are restarted; stored snippets are kept."""
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
