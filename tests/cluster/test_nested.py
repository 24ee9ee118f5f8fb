"""Submitted from inside another job, and steps that Slurm refuses."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import MEMORY, SECONDS, Job
from tests.waiting import wait_for

AROUND = ["--gpus-per-node=1", "--cpus-per-task=2", "--ntasks-per-node=1", "--mem-per-cpu=900", "--nodes=1"]


HOW = [(around, engine) for engine in ("flink", "array") for around in ("srun", "sbatch")]


@pytest.fixture(scope="module")
def from_jobs(cluster, flink, few, trees, tmp_path_factory) -> dict[tuple[str, str], Job]:
    """Submissions from inside `srun` and `sbatch`, with each engine; all run at the same time."""
    folder = tmp_path_factory.mktemp("nested")
    waiting = {}
    for around, engine in HOW:
        place = folder / f"{around}-{engine}"
        place.mkdir()
        words = [sys.executable, "-m", "runners.slurm", "submit", "--time", "9", "--engine", engine]
        words += ["--flink", flink, *MEMORY] if engine == "flink" else []
        words += ["--", "--catalogue", few, "--models", trees[0], "--output", place / "output"]
        words += ["--snippet_size", 6]
        options = [*AROUND, "--time=8", f"--output={place / 'said'}"]
        if around == "srun":
            command = ["srun", *options, *map(str, words)]
        else:
            (place / "around.sh").write_text(f"#!/bin/sh\nexec {' '.join(map(str, words))}\n")
            command = ["sbatch", "--wait", *options, str(place / "around.sh")]
        waiting[around, engine] = place, subprocess.Popen(command)
    jobs = {}
    for how, (place, process) in waiting.items():
        assert process.wait(SECONDS) == 0, (place / "said").read_text()
        ids = [line.split()[1] for line in (place / "said").read_text().splitlines() if line[:4] == "job "]
        jobs[how] = Job(ids[0], place / "output", *ids[1:])
    for job in jobs.values():
        wait_for(lambda job=job: job.has_ended(job.finish or job.id), SECONDS, job.log)
    return jobs


@pytest.mark.parametrize(("around", "engine"), HOW)
def test_submitted_from_a_job(from_jobs, around, engine):
    """Nothing of the job around is in the new one: it has no GPU, all cores, and its own time."""
    job = from_jobs[around, engine]
    assert job.field("JobState", job.finish or job.id) == "COMPLETED", job.log()
    assert job.manifest()["rows_predicted"] == job.manifest()["rows_in"]
    assert job.field("TimeLimit") == "00:09:00" and job.field("TresPerNode") == ""
    assert job.field("NumCPUs") == "4"  # a whole node
    job.assert_nothing_left()


@pytest.fixture
def strange_srun(tmp_path, monkeypatch):
    """Puts a srun on the PATH of jobs that asks for too many GPUs for some steps; Slurm refuses it."""
    real, path = shutil.which("srun"), os.environ["PATH"]

    def make(pattern: str, folder: Path) -> None:
        folder.mkdir()
        text = f'#!/bin/sh\ncase "$*" in {pattern}) exec {real} --gpus-per-node=9 "$@";; esac\n'
        text += f'exec {real} "$@"\n'
        (folder / "srun").write_text(text)
        (folder / "srun").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{path}")

    return make


REFUSAL = (
    "srun: Step requested gres_per_node=gpu:9 is more than the job's gres_per_node=gpu:2; "
    "Unable to create step"
)


def test_steps_that_srun_refuses(submit, strange_srun, tmp_path):
    """The last line names the step and Slurm's reason, and does not say that the same command goes on."""
    # Each has a node of its own: they run at the same time.
    one_node = ["--nodes", 1, "--engine", "flink"]
    strange_srun("*standalone-job.sh*", tmp_path / "jobmanager")
    of_jobmanager = submit(one_node)
    strange_srun("*n[12]-0*", tmp_path / "taskmanager")
    of_taskmanager = submit(one_node)
    jobs = (of_jobmanager, of_taskmanager)
    assert [job.wait() for job in jobs] == ["FAILED", "FAILED"]
    line = of_jobmanager.last_line()
    assert line.startswith(f"error: Flink's JobManager cannot be started: {REFUSAL}"), of_jobmanager.log()
    line = of_taskmanager.last_line()
    begin = r"error: TaskManager n[12]-0 ended \(exit code 1\) before it registered, 3 times: "
    assert re.match(begin + re.escape(REFUSAL), line), of_taskmanager.log()
    for job in jobs:
        assert job.field("ExitCode") == "1:0" and "goes on" not in job.last_line()
        job.assert_nothing_left()
