"""How tasks ended: Slurm's words from its controller, its accounting, or only in a log."""

import dataclasses
from pathlib import Path

import pytest

from runners.slurm import states
from runners.slurm.records import Record
from runners.slurm.tables import main
from tests.runners.slurm.test_jobs import FORGOTTEN

WORDS = [
    "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=77.batch cgroup. "
    "Some of your processes may have been",
    "slurmstepd: error: Detected 3 oom_kill events in StepId=77.batch. "
    "Some of the step tasks have been OOM Killed.",
    "slurmstepd-n1: error: StepId=77.batch exceeded memory limit (642957312 > 209715200), being killed",
    "slurmstepd: error: Exceeded step memory limit at some point.",
]


@pytest.fixture
def array(tmp_path) -> Record:
    """An array of which nothing is there but this."""
    (tmp_path / "_slurm").mkdir()
    logs = tmp_path / "_slurm"
    record = Record("77", "array", str(tmp_path), f"{logs}/77_%a.log", f"{logs}/array-1.sh", 0.0)
    return dataclasses.replace(record, finish="78", finish_log=f"{logs}/78.log")


@pytest.mark.parametrize("words", WORDS)
def test_what_slurmstepd_says(tmp_path, words):
    """A job that failed so was killed for memory; one that was completed nevertheless was not."""
    log = tmp_path / "log"
    log.write_text(f"at work\n{words}\nmore\n")
    assert states.named("FAILED", str(log)) == states.named("CANCELLED", str(log)) == "OUT_OF_MEMORY"
    assert states.named("COMPLETED", str(log)) == "COMPLETED"
    assert states.named("TIMEOUT", str(log)) == "TIMEOUT"
    log.write_text(f"{words}\n" + "the next start, which failed otherwise\n" * 200)
    assert states.named("FAILED", str(log)) == "FAILED"
    assert states.named("FAILED", str(tmp_path / "none")) == "FAILED"


def test_from_the_controller(array, program):
    """A line a task; what a task's own log says of memory counts."""
    lines = [f"JobId=8{n} ArrayJobId=77 ArrayTaskId={n} JobName=x JobState=COMPLETED X=1" for n in (0, 1, 3)]
    lines += ["JobId=77 ArrayJobId=77 ArrayTaskId=2 JobName=x JobState=FAILED X=1"]
    lines += ["JobId=84 ArrayJobId=77 ArrayTaskId=4 JobName=x JobState=OUT_OF_MEMORY X=1"]
    lines += ["JobId=85 ArrayJobId=77 ArrayTaskId=5 JobName=x JobState=TIMEOUT X=1"]
    program("scontrol", "\n".join(lines))
    Path(array.log.replace("%a", "2")).write_text(f"{WORDS[2]}\n")
    assert states.tasks(array) == {"COMPLETED": [0, 1, 3], "OUT_OF_MEMORY": [2, 4], "TIMEOUT": [5]}
    assert states.summary(array) == (
        "COMPLETED 0-1 3; OUT_OF_MEMORY 2 4; TIMEOUT 5; "
        "Slurm killed a task for memory, ask for more with --mem"
    )


def test_from_the_accounting(array, program):
    """Where the job of the tables had to wait for long, the controller has forgotten the tasks."""
    program("scontrol", FORGOTTEN, 1)
    program("sacct", "77_0|COMPLETED\n77_1|OUT_OF_MEMORY\n77_2|CANCELLED by 1000\n77_[3-5%2]|PENDING")
    assert states.tasks(array) == {
        "COMPLETED": [0],
        "OUT_OF_MEMORY": [1],
        "CANCELLED": [2],
        "PENDING": [3, 4, 5],
    }


def test_from_logs_alone(array, program):
    """Without accounting."""
    program("scontrol", FORGOTTEN, 1)
    program("sacct", "", 1)
    forgotten = f"Slurm has forgotten how its tasks ended, see {array.log}"
    assert states.summary(array) == forgotten
    Path(array.log.replace("%a", "12")).write_text(f"{WORDS[0]}\n")
    said = "Slurm killed a task for memory, ask for more with --mem"
    assert states.summary(array) == f"OUT_OF_MEMORY 12; {forgotten}; {said}"


def test_the_job_of_the_tables(predict, few, trees, program, monkeypatch, capfd):
    """Its last line says how the tasks ended, where samples are missing; else it is `finish`."""
    words = ["--passes", 1, "--snippet_size", 10]
    output = predict(few, trees[0], *words, "--snippets", "0:1").output
    (output / "_slurm").mkdir()
    logs = f"{output}/_slurm"
    Record(
        "77", "array", str(output), f"{logs}/77_%a.log", f"{logs}/a.sh", 0.0, "78", f"{logs}/78.log"
    ).write()
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    program("scontrol", "JobId=77 ArrayJobId=77 ArrayTaskId=1 JobState=TIMEOUT X=1")
    assert main([str(output)]) == 1
    assert capfd.readouterr().out.splitlines()[-2:] == [
        "--snippets 1:3",
        "array 77: TIMEOUT 1; the same submission does what is missing",
    ]
    predict(few, trees[0], *words, "--snippets", "1:3", output=output)
    assert main([str(output)]) == 0 and (output / "manifest.json").exists()
    assert main([str(output), "--max_failure_fractoin", "1"]) == 2


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("4", [4]),
        ("2-7,9%3", [2, 3, 4, 5, 6, 7, 9]),
        ("1-15:2", [1, 3, 5, 7, 9, 11, 13, 15]),
        ("0-4:2,9", [0, 2, 4, 9]),
    ],
)
def test_numbers_of_tasks(written, meant):
    """In all forms in which Slurm writes those that wait."""
    assert list(states._numbers(written)) == meant
