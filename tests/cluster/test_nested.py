"""Submitted from inside another job, and steps that Slurm refuses."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.cluster.conftest import MEMORY, SECONDS, Job
from tests.waiting import wait_for

AROUND = ["--gpus-per-node=1", "--cpus-per-task=2", "--ntasks-per-node=1", "--mem-per-cpu=900", "--nodes=1"]


@pytest.mark.parametrize("how", ["srun", "sbatch"])
@pytest.mark.parametrize("engine", ["flink", "array"])
def test_submitted_from_a_job(cluster, flink, few, trees, tmp_path, slurm_command, how, engine):
    """Nothing of the job around is in the new one: it has no GPU, all cores, and its own time."""
    output, said = tmp_path / "output", tmp_path / "said"
    words = [sys.executable, "-m", "runners.slurm", "submit", "--time", "9", "--engine", engine]
    words += ["--flink", flink, *MEMORY] if engine == "flink" else []
    words += ["--", "--catalogue", few, "--models", trees[0], "--output", output, "--snippet_size", 6]
    around = [*AROUND, "--time=3", f"--output={said}"]
    if how == "srun":
        subprocess.run(["srun", *around, *map(str, words)], check=True)
    else:
        script = tmp_path / "around.sh"
        script.write_text(f"#!/bin/sh\nexec {' '.join(map(str, words))}\n")
        subprocess.run(["sbatch", "--wait", *around, script], check=True)
    ids = [line.split()[1] for line in said.read_text().splitlines() if line.startswith("job ")]
    job = Job(ids[0], output, *ids[1:])
    last = job.finish or job.id
    wait_for(lambda: job.has_ended(last), SECONDS, job.log)
    assert job.field("JobState", last) == "COMPLETED", job.log()
    assert job.manifest()["rows_predicted"] == job.manifest()["rows_in"]
    assert job.field("TimeLimit") == "00:09:00" and job.field("TresPerNode") == ""
    assert job.field("NumCPUs") == "4"  # a whole node
    job.assert_nothing_left()


@pytest.fixture
def strange_srun(tmp_path, monkeypatch):
    """A srun that asks for too many GPUs where a step's words hold these; it is Slurm itself that refuses."""
    real = shutil.which("srun")
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(words: str) -> None:
        text = f'#!/bin/sh\ncase "$*" in *{words}*) exec {real} --gpus-per-node=9 "$@";; esac\nexec {real} "$@"\n'
        (folder / "srun").write_text(text)
        (folder / "srun").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return make


REFUSAL = "srun: Step requested gres_per_node=gpu:9 is more than the job's gres_per_node=gpu:2; Unable to create step"


def test_a_jobmanager_that_srun_refuses(submit, strange_srun):
    """The last line is Slurm's reason; the same command would fail likewise, and nothing says that it goes on."""
    strange_srun("standalone-job.sh")
    job = submit(["--nodes", 2])
    assert job.wait() == "FAILED" and job.field("ExitCode") == "1:0"
    assert job.last_line().startswith(f"error: Flink's JobManager cannot be started: {REFUSAL}"), job.log()
    assert "goes on" not in job.last_line()
    job.assert_nothing_left()


def test_a_taskmanager_that_srun_refuses(submit, strange_srun):
    """Likewise, with its name."""
    strange_srun("n2-0")
    job = submit(["--nodes", 2])
    assert job.wait() == "FAILED" and job.field("ExitCode") == "1:0"
    begin = "error: TaskManager n2-0 ended (exit code 1) before it registered, 3 times: "
    assert job.last_line().startswith(f"{begin}{REFUSAL}"), job.log()
    assert "goes on" not in job.last_line()
    job.assert_nothing_left()
