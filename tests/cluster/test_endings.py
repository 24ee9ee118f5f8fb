"""Jobs that cannot go on: each ends soon, with a line that says why, and leaves nothing behind."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from beam_zoo.storage.files import sha256
from runners.flink import install
from tests.cluster import slurm
from tests.cluster.conftest import CLEAR, SECONDS, SLOW
from tests.waiting import wait_for


def test_a_cut_link(submit, slow):
    """A link that is down for a moment does no harm; one that stays down ends the job within a minute."""
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


def test_the_time_limit(submit, slow):
    """Slurm's warning ends the job in order, with the reason."""
    job = submit(["--nodes", 1, "--engine", "flink"], "--snippet_size", 4, "--passes", 60, models=[slow])
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
    assert "1 of 2 TaskManagers did not register in 40 s: n2-0; see their logs" in job.last_line()
    job.assert_nothing_left()
