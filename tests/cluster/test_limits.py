"""Limits of a cluster: how large an array may be, and what a task may have of memory."""

import re
import subprocess

from tests.cluster.conftest import SECONDS, Job
from tests.cluster.slurm import MAX_ARRAY_SIZE
from tests.waiting import wait_for

SHARED = ["--engine", "array", "--shared_nodes"]


def test_more_tasks_than_an_array_may_have(submit, few, trees, tmp_path, slurm_command):
    """They become fewer, which together do all snippets, and a line says so."""
    words = ["submit", "--time", 9, *SHARED, "--tasks", 20, "--hold", "--", "--catalogue", few]
    words += ["--models", trees[0], "--output", tmp_path / "out", "--snippet_size", 1]
    code, out, err = slurm_command(*words)
    assert code == 0, err
    said = f"note: {MAX_ARRAY_SIZE} tasks, not 20: this cluster's MaxArraySize allows no more"
    assert said in err.splitlines()
    job = Job(re.findall(r"^job (\d+)", out, re.MULTILINE)[0], tmp_path / "out")
    (script,) = (job.output / "_slurm").glob("array-*.sh")
    ranges = re.search(r"snippets=\((.*)\)", script.read_text())[1].split()
    assert len(ranges) == MAX_ARRAY_SIZE and ranges[0].startswith("0:") and ranges[-1].endswith(":23")
    assert f"{MAX_ARRAY_SIZE} PENDING" in slurm_command("status", job.id)[1]
    assert slurm_command("cancel", job.id)[0] == 0


def test_a_task_that_slurm_kills_for_memory(submit, slow, slurm_command):
    """`status` and the last line of the tables' job say so, though Slurm says FAILED; more memory helps."""
    how, options = [*SHARED, "--tasks", 2], ["--snippet_size", 64, "--passes", 1]
    job = submit([*how, "--mem", "150M"], *options, models=[slow])
    assert job.finish
    wait_for(lambda: job.has_ended(job.finish), SECONDS, str)
    assert job.field("JobState") == "FAILED" and job.parts() == {}
    log = (job.output / "_slurm" / f"{job.id}_0.log").read_text()
    assert "exceeded memory limit" in log
    _, out, _ = slurm_command("status", job.id)
    assert f"job {job.id} (array): 2 OUT_OF_MEMORY\n" in out
    assert f"job {job.finish} (tables): OUT_OF_MEMORY, exit code" in out  # it has as little


def test_what_the_tables_say_of_lost_tasks(submit, slow):
    """Each of the array's tasks, by how it ended."""
    # The limit is the array's: what comes after it has memory enough.
    job = submit([*SHARED, "--tasks", 2, "--hold"], "--snippet_size", 64, "--passes", 1, models=[slow])
    assert job.finish
    subprocess.run(["scontrol", "update", f"JobId={job.id}", "MinMemoryNode=150"], check=True)
    subprocess.run(["scontrol", "release", job.id], check=True)
    wait_for(lambda: job.has_ended(job.finish), SECONDS, str)
    assert job.field("JobState", job.finish) == "FAILED" and job.field("ExitCode", job.finish) == "1:0"
    lines = (job.output / "_slurm" / f"{job.finish}.log").read_text().splitlines()
    assert "--snippets 0:2" in lines
    assert lines[-1] == (
        f"array {job.id}: OUT_OF_MEMORY 0-1; Slurm killed a task for memory, ask for more with --mem; "
        "the same submission does what is missing"
    )
