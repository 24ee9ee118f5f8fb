"""Predictions as an array of tasks, and the job that builds the tables after them."""

import re
import subprocess

from tests.cluster.compare import assert_same
from tests.cluster.conftest import RUN, SECONDS, Job
from tests.waiting import wait_for


def test_array(submit, direct_run, slurm_command):
    """Each task predicts its range; the tables come when all have ended."""
    job = submit(["--nodes", 2, "--engine", "array", "--tasks", 3, "--shared_nodes"], *RUN)
    wait_for(
        lambda: job.field("JobState", job.finish) not in ("PENDING", "RUNNING", "COMPLETING"), SECONDS, str
    )
    logs = [(job.output / "_slurm" / f"{job.id}_{task}.log").read_text() for task in range(3)]
    assert job.field("JobState", job.finish) == "COMPLETED", logs
    assert all("samples of snippets" in log for log in logs)
    threads = "OMP_NUM_THREADS=1 of the shell that submitted: this task computes on 1 of its 1 cores"
    assert all(threads in log.splitlines() for log in logs)
    assert_same(direct_run, job.output)
    code, out, _ = slurm_command("status", job.id)
    assert code == 0 and "3 COMPLETED" in out and f"job {job.finish} (tables): COMPLETED" in out
    assert "tables: complete" in out


def ended(job: Job) -> str:
    """The state of the job that builds the tables, when it has ended."""
    assert job.finish is not None
    wait_for(lambda: job.has_ended(job.finish), SECONDS, str)
    return job.field("JobState", job.finish)


def test_a_task_that_was_lost(submit, slow, slurm_command):
    """The job after the array always runs, and says what is missing; a new array predicts that."""
    how, options = (
        ["--engine", "array", "--tasks", 2, "--shared_nodes"],
        ["--snippet_size", 8, "--passes", 20],
    )
    job = submit(how, *options, models=[slow])
    job.wait_for_parts(1)
    subprocess.run(["scancel", f"{job.id}_1"], check=True)
    assert ended(job) == "FAILED" and job.field("ExitCode", job.finish) == "1:0"
    before = job.parts()
    assert 8 <= len(before) < 16
    finish_log = (job.output / "_slurm" / f"{job.finish}.log").read_text()
    missing = [n for n in range(16) if f"part-{n:07d}.parquet" not in before]
    listed = [range(int(a), int(b)) for a, b in re.findall(r"--snippets (\d+):(\d+)", finish_log)]
    assert sorted(n for each in listed for n in each) == missing
    assert not (job.output / "manifest.json").exists()

    again = submit(how, *options, models=[slow], output=job.output)
    assert ended(again) == "COMPLETED"
    assert before.items() <= again.parts().items()
    scripts = sorted((job.output / "_slurm").glob("array-*.sh"))
    assert "snippets=(0:8 8:16)" in scripts[0].read_text()
    ranges = re.search(r"snippets=\((.*)\)", scripts[1].read_text())[1].split()
    assert (
        len(ranges) == min(2, len(missing)) and f"{ranges[0]}".startswith("0:") and ranges[-1].endswith(":16")
    )


def test_cancel(submit, slow, slurm_command):
    """Cancelling ends the tasks and the job that waits for them."""
    job = submit(["--engine", "array", "--tasks", 2, "--shared_nodes"], "--passes", 40, models=[slow])
    wait_for(lambda: job.field("JobState") == "RUNNING", SECONDS, str)
    code, out, _ = slurm_command("status", job.id)
    assert code == 0 and f"job {job.finish} (tables): PENDING (Dependency)" in out
    assert slurm_command("cancel", job.id)[0] == 0
    assert "CANCELLED" in ended(job)
    job.assert_nothing_left()
