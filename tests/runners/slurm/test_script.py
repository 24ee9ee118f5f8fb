"""Batch scripts: text, from nothing but what is given, held against files that were read by a person."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from runners.slurm import script
from runners.slurm.gpus import GRES, PER_TASK, Gpus

GOLDEN = Path(__file__).parent / "golden"
BATCH = script.Batch(
    command="predict",
    output="/data/desi out",
    logs="/data/desi out/_slurm",
    python="/envs/zoo/bin/python",
    working_folder="/home/ada/beam-zoo",
    environment={"JAVA_HOME": "/opt/java 17"},
    directives={"time": "12:00:00", "account": "galaxies", "hold": None},
    options=[
        "--catalogue=/data/a galaxy's.csv",
        "--models=/m/a.yaml",
        "--output=/data/desi out",
        "--device=cuda",
    ],
)
SCRIPTS = {
    "flink": script.flink(
        BATCH,
        nodes=4,
        gpus=Gpus(2),
        shared_nodes=False,
        settings={"flink": "/shared/flink", "taskmanager_memory": "2g"},
    ),
    "flink_cpu_shared": script.flink(
        dataclasses.replace(BATCH, environment={}, directives={"time": "60", "no-requeue": None}),
        nodes=2,
        gpus=Gpus(),
        shared_nodes=True,
        settings={"flink": "/shared/flink"},
    ),
    "flink_gres": script.flink(
        BATCH,
        nodes=2,
        gpus=Gpus(2, "a100", GRES, ("nvme:100",)),
        shared_nodes=False,
        settings={"flink": "/shared/flink"},
    ),
    "flink_gpus_per_task": script.flink(
        BATCH,
        nodes=2,
        gpus=Gpus(2, "a100", PER_TASK),
        shared_nodes=False,
        settings={"flink": "/shared/flink"},
    ),
    "array": script.array(BATCH, ranges=["0:12", "12:25", "25:40"], whole_nodes=False, gpus=Gpus(1)),
    "array_gres": script.array(
        BATCH, ranges=["0:12", "12:25"], whole_nodes=False, gpus=Gpus(1, "a100", GRES, ("nvme:100",))
    ),
    "array_gpus_per_task": script.array(
        BATCH, ranges=["0:12", "12:25"], whole_nodes=False, gpus=Gpus(1, None, PER_TASK)
    ),
    "array_cpu": script.array(
        dataclasses.replace(BATCH, command="represent"), ranges=["0:40"], whole_nodes=True, gpus=Gpus()
    ),
    "finish": script.finish(BATCH, gpus=Gpus(1), max_failure_fraction=0.05),
    "finish_gres": script.finish(
        dataclasses.replace(
            BATCH,
            directives={
                "time": "60",
                "partition": "gpu",
                "constraint": "a100|h100",
                "mem-per-gpu": "40G",
                "cpus-per-gpu": "8",
                "gpu-bind": "none",
            },
        ),
        gpus=Gpus(1, "a100", GRES, ("nvme:100",)),
        max_failure_fraction=0.05,
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_golden(name):
    """Another script than the one that was read fails here; so does one that bash cannot parse."""
    assert SCRIPTS[name] == (GOLDEN / f"{name}.sh").read_text()
    bash = shutil.which("bash")
    assert bash
    subprocess.run([bash, "-n"], input=SCRIPTS[name], text=True, check=True)


def test_what_the_shell_makes_of_the_words():
    """Quotes, blanks and dollars reach the program as they are; only the range of a task is the shell's."""
    options = ["--carry=$HOME", "--output=/a b/'c'", "--seed=`id`", "--x=${y}"]
    text = script.array(
        dataclasses.replace(BATCH, python="printf", options=options),
        ranges=["0:2", "2:5"],
        whole_nodes=False,
        gpus=Gpus(),
    )
    text = text.replace("exec printf -P -m pipelines.predict", "exec printf '%s\\n'")
    environment = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_ON_NODE": "3", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=True, env=environment)
    assert done.stdout.splitlines() == [*options, "--snippets=2:5"]


def test_a_percent_sign_is_no_pattern():
    """sbatch would replace %j in the output's own path."""
    text = script.finish(
        dataclasses.replace(BATCH, logs="/data/100%j/_slurm"), gpus=Gpus(), max_failure_fraction=0
    )
    assert "#SBATCH --output=/data/100%%j/_slurm/%j.log" in text
