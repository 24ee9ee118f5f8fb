"""Jobs that Slurm remembers in its accounting only: programs of that name answer as Slurm's own do."""

import dataclasses
import os
import socket
from pathlib import Path

import pytest

from beam_zoo.errors import UserError
from runners.slurm import cores
from runners.slurm.__main__ import main
from runners.slurm.commands import output_of
from runners.slurm.job import ports as job_ports
from runners.slurm.nodes import Allocation
from runners.slurm.records import Record, own_folder

FORGOTTEN = "slurm_load_jobs error: Invalid job id specified"


@pytest.fixture
def record(predict, few, trees) -> Record:
    """A job whose output is there."""
    output = predict(few, trees[0], "--passes", 1, "--snippet_size", 10).output
    made = Record("77", "flink", str(output), f"{output}/_slurm/77.log", f"{output}/_slurm/flink-1.sh", 0.0)
    made.write()
    Path(made.log).write_text("the log\n")
    return made


def test_accounting(record, program, capfd):
    """Its script's path leads to the output."""
    program("scontrol", FORGOTTEN, 1)
    program("sacct", f"sbatch --parsable {record.script}")
    assert main(["logs", "77"]) == 0
    assert capfd.readouterr().out == "the log\n"
    program("sacct", "TIMEOUT|0:0|12:00:01\nx|y|z")
    assert main(["status", "77", "--output", record.output]) == 0
    out = capfd.readouterr().out
    assert "job 77 (flink): TIMEOUT, exit code 0:0, 12:00:01" in out
    assert "galaxies: 23 of 23 stored" in out and "tables: complete" in out


def test_forgotten(record, program, capfd):
    """Without accounting the output must be named."""
    program("scontrol", FORGOTTEN, 1)
    program("sacct", "", 1)
    assert main(["status", "77"]) == 2
    assert "give --output OUT" in capfd.readouterr().err
    assert main(["status", "77", "--output", record.output]) == 0
    assert "ended; Slurm has forgotten it" in capfd.readouterr().out
    assert main(["status", "78", "--output", record.output]) == 2
    assert "job 78 was not submitted by python -m runners.slurm for" in capfd.readouterr().err
    assert main(["status", "7a"]) == 2
    assert "a job's id is a number, not '7a'" in capfd.readouterr().err


def test_no_answer(record, program, capfd):
    """A controller that is down has not forgotten a job."""
    program("scontrol", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1)
    for words in (["status", "77"], ["cancel", "77"]):
        assert main([*words, "--output", record.output]) == 2
        assert "Slurm does not answer: slurm_load_jobs error: Unable to contact" in capfd.readouterr().err


def test_tasks_are_counted(record, program, capfd):
    """Those that wait stand in one line of Slurm's."""
    lines = ["JobId=77 ArrayJobId=77 ArrayTaskId=2-7,9%3 JobName=x JobState=PENDING Reason=Resources"]
    lines += [
        f"JobId=8{n} ArrayJobId=77 ArrayTaskId={n} JobName=x JobState=RUNNING Reason=None" for n in (0, 1)
    ]
    program("scontrol", "\n".join(lines))
    assert main(["status", "77", "--output", record.output]) == 0
    assert "7 PENDING, 2 RUNNING" in capfd.readouterr().out


def test_the_job_of_the_tables(record, program, capfd):
    """Its id, which submit prints, names the same submission."""
    dataclasses.replace(record, job="78", finish="79", finish_log="/none").write()
    program("scontrol", FORGOTTEN, 1)
    assert main(["status", "79", "--output", record.output]) == 0
    assert "job 78 (flink): ended" in capfd.readouterr().out
    assert main(["cancel", "79", "--output", record.output]) == 0
    assert "job 78 had ended already" in capfd.readouterr().out


def test_a_folder_of_somebody_else(tmp_path, monkeypatch):
    """The job's key and configuration are not put where others could exchange them."""
    (tmp_path / "_slurm").mkdir()
    assert own_folder(str(tmp_path), "1").stat().st_mode & 0o777 == 0o700
    (tmp_path / "_slurm" / "2").mkdir(mode=0o700)
    (tmp_path / "_slurm" / "2").chmod(0o777)
    (tmp_path / "_slurm" / "3").symlink_to(tmp_path / "_slurm" / "1")
    for job in "2", "3":
        with pytest.raises(UserError, match="is not a folder of yours alone"):
            own_folder(str(tmp_path), job)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(UserError, match="is not a folder of yours alone"):
        own_folder(str(tmp_path), "1")


def test_nodes_of_a_large_cluster(program, monkeypatch):
    """Names and addresses of all nodes, from Slurm's own words."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[01-02],fat7")
    lines = [
        f"NodeName={name} Arch=x86_64 CoresPerSocket=32 NodeAddr={address} NodeHostName={name} Version=23.02"
        for name, address in (("fat7", "10.0.0.7"), ("gpu01", "gpu01-ib"), ("gpu02", "gpu02-ib"))
    ]
    program("names", "gpu01\ngpu02\nfat7")
    program("nodes", "\n".join(lines))
    scontrol = program("scontrol", "")
    scontrol.write_text('#!/bin/sh\ncase "$*" in "show hostnames gpu[01-02],fat7") names;; *) nodes;; esac\n')
    allocation = Allocation.here()
    assert allocation.hosts == ["gpu01", "gpu02", "fat7"]
    assert allocation.addresses == {"fat7": "10.0.0.7", "gpu01": "gpu01-ib", "gpu02": "gpu02-ib"}


def test_not_in_a_job(monkeypatch, capfd):
    """What belongs into a job says so outside."""
    from runners.slurm import job

    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    words = ["--flink=/f", "--", "predict", "--catalogue=a.csv", "--models=b", "--output=/o"]
    assert job.main(words) == 2
    assert "this is not a job of Slurm (SLURM_JOB_ID is not set)" in capfd.readouterr().err
    assert job.main(["--flink=/f", "--", "prdict"]) == 2
    assert "after -- comes predict or represent, not prdict" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("0:03", "the time limit is near"),
        ("INVALID", "the time limit is near"),  # what squeue prints when the limit is over
        ("5:00", "the job was cancelled"),
        ("UNLIMITED", "the job was cancelled"),
    ],
)
def test_why_it_was_stopped(program, capfd, left, said):
    """Asked when all has ended in order, which may be after the time limit."""
    from runners.slurm import job

    program("squeue", left)
    with pytest.raises(KeyboardInterrupt), job._why_it_was_stopped("20"):
        raise KeyboardInterrupt
    assert capfd.readouterr().err == f"{said}: submit the same command again to go on\n"


def test_ports():
    """They come from the job's id, below the ephemeral ports; if a pair is taken, another one is tried."""
    first = job_ports("4711", "127.0.0.1")
    assert (first.rpc, first.rest) == (29_422, 29_423)
    assert job_ports("10711", "127.0.0.1") == first
    for port in first.rpc, first.rest:
        with socket.create_server(("127.0.0.1", port)):
            other = job_ports("4711", "127.0.0.1")
        assert other == job_ports("5720", "127.0.0.1") != first
    assert all(20_000 <= job_ports(str(n), "127.0.0.1").rest < 32_000 for n in range(0, 7000, 97))


def test_variables_around(program, monkeypatch):
    """What stands for options of Slurm's commands does not reach them; what finds the cluster does."""
    for name in ("SLURM_GPUS_PER_NODE", "SBATCH_TIMELIMIT", "SQUEUE_STATES", "SCANCEL_STATE", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "1")
    for name in ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS", "SLURMS"):
        monkeypatch.setenv(name, "kept")
    program("scontrol", "").write_text("#!/bin/sh\nenv\n")
    found = [line.partition("=")[0] for line in output_of("scontrol").splitlines()]
    ours = {name for name in found if name.startswith(("SL", "SB", "SQ", "SC"))}
    assert ours == {"SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS", "SLURMS", "SLURM_BITSTR_LEN"}


@pytest.mark.parametrize(
    ("variable", "workers", "said"),
    [
        ("", 1, None),
        ("2", 1, "OMP_NUM_THREADS=2 of the shell that submitted: a worker computes on 2 of its 8 cores"),
        ("2", 4, "OMP_NUM_THREADS=2 of the shell that submitted: a worker computes on 2 of its 2 cores"),
    ],
)
def test_cores(monkeypatch, variable, workers, said):
    """A worker's share of what the job has here, and what OMP_NUM_THREADS leaves of it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert cores.share(workers) == 8 // workers and cores.note(workers) == said
