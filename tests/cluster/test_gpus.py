"""GPUs in every form, from a Slurm whose GPUs are device nodes without a GPU behind them."""

import contextlib
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.conftest import SECONDS, Job
from tests.waiting import wait_for

GPUS = re.compile(r"\b(?:TresPer\w+|GRES|JOB_GRES)=\S+")


def described(job: Job, id: str) -> list[str]:
    """What Slurm says that a job asked for, and was given."""
    words = ["scontrol", "--details", "--oneliner", "show", "job", id]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return GPUS.findall(done.stdout)


def gpus_of_tasks(job: Job) -> dict[str, tuple[str, str]]:
    """By the number of a task of an array that runs: its node, and the GPUs that it sees."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            variables = {name: value for name, _, value in (word.partition("=") for word in words)}
            if variables.get("SLURM_ARRAY_JOB_ID") == job.id and "SLURMD_NODENAME" in variables:
                gpus = variables.get("CUDA_VISIBLE_DEVICES", "")
                found[variables["SLURM_ARRAY_TASK_ID"]] = (variables["SLURMD_NODENAME"], gpus)
    return found


@pytest.mark.parametrize(
    ("asked", "of_a_task"),
    [
        (["--gpus-per-node", "a100:2"], "TresPerNode=gres:gpu:a100:1"),
        (["--gres=gpu:2,nvme:100"], "TresPerNode=gres:gpu:1,gres:nvme:100"),
        (["--gpus_per_task", "a100:2"], "TresPerTask=gres:gpu:a100:1"),
    ],
)
def test_tasks_of_an_array(submit, catalogue, asked, of_a_task):
    """A task a GPU, each with one of its own; the tables have none, and may run where there is none."""
    job = submit(["--engine", "array", "--constraint", "fast", *asked], "--snippet_size", 8)
    assert job.finish
    assert of_a_task in described(job, job.id)
    wanted = ["TresPerNode=gres:nvme:100"] if "nvme" in str(asked) else []
    assert [each for each in described(job, job.finish) if each.startswith("TresPer")] == wanted
    assert job.field("Features", job.finish) == "fast"
    seen: dict[str, tuple[str, str]] = {}

    def both_seen() -> bool:
        seen.update(gpus_of_tasks(job))
        return len(seen) == 2

    wait_for(both_seen, SECONDS, lambda: str(seen))
    assert {gpus for _, gpus in seen.values()} <= {"0", "1"} and len(set(seen.values())) == 2, seen
    wait_for(lambda: job.has_ended(job.finish), SECONDS, str)
    logs = [(job.output / "_slurm" / f"{job.id}_{task}.log").read_text() for task in (0, 1)]
    for log in logs:
        assert "error: --device=cuda, but this machine has no usable GPU" in log.splitlines()[-1]
    given = [each for each in described(job, job.id) if each.startswith("JOB_GRES=")]
    assert [re.findall(r"gpu:a100:(\d)", each) for each in given] == [["1"], ["1"]]


def gpus_of_workers(job: Job) -> set[str]:
    """What the workers say that they see. Each cannot use its GPU, and says so in one line; the job ends."""
    assert job.wait() == "FAILED" and job.field("ExitCode") == "2:0", job.log()
    assert job.last_line().startswith("error: --device=cuda, but this machine has no usable GPU"), job.log()
    seen = {re.search("GPUs (.*)", log.read_text())[1] for log in job.folder.glob("worker-*.log")}
    job.assert_nothing_left()
    return seen


def test_workers_of_the_gpus_of_a_node(submit):
    """A TaskManager, and a worker, for each; steps also get the GPUs of a job that asked for a type."""
    # Each has a node of its own: they run at the same time.
    plain = submit(["--nodes", 1, "--engine", "flink", "--gpus_per_node", 2], "--snippet_size", 8)
    typed = submit(["--engine", "flink", "--gres=gpu:a100:2,nvme:100"], "--snippet_size", 8)
    for job in (plain, typed):
        job.wait()
    for job in (plain, typed):
        assert gpus_of_workers(job) == {"0", "1"}
        assert len(list(job.folder.glob("worker-*.log"))) == 2
    threads = "OMP_NUM_THREADS=1 of the shell that submitted: a worker computes on 1 of its "
    assert len([line for line in typed.log().splitlines() if line.startswith(threads)]) == 1


def test_workers_of_a_task_a_node(submit):
    """Likewise where a cluster counts GPUs by task."""
    job = submit(["--nodes", 2, "--gpus-per-task=a100:2"], "--snippet_size", 8)
    seen = gpus_of_workers(job)
    assert seen and seen <= {"0", "1"}  # the job may end before a worker of the other GPU has begun
    assert job.field("NumTasks") == "2"
    assert len(list(job.folder.glob("taskmanager-n[12]-[01].log"))) == 4
