"""Run Slurm's commands, without the environment variables that act as options."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from beam_zoo.errors import UserError, one_line

_OF_SLURM = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SCANCEL|SCONTROL|SQUEUE|SACCT|SINFO)_")
_IDENTITY = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}
"""Variables of Slurm's commands that name the cluster and the user; all others act as options."""


def output_of(*words: str) -> str:
    """Run a command of Slurm and return what it prints.

    Raises:
        UserError: the command does not exist, or fails.
    """
    done = run_slurm(*words)
    if done.returncode:
        raise UserError(
            f"{words[0]}: {one_line(done.stderr or done.stdout or f'exit code {done.returncode}')}"
        )
    return done.stdout


def run_slurm(*words: str, timeout: float | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command of Slurm.

    Raises:
        UserError: the command does not exist.
        TimeoutExpired: it did not end in time.
    """
    # 0: no limit to the length of an array's list of tasks.
    environment = {**without_options(os.environ), "SLURM_BITSTR_LEN": "0"}
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=timeout
        )
    except FileNotFoundError:
        raise UserError(
            f"there is no {words[0]} on the PATH: this machine is not of a cluster with Slurm"
        ) from None


def without_options(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables without those that act as options of Slurm's commands."""
    kept = [name for name in environment if name in _IDENTITY or not _OF_SLURM.match(name)]
    return {name: environment[name] for name in kept}


def describe(job: str) -> str:
    """Slurm's description of a job, one line per task; empty if Slurm has forgotten the job.

    Raises:
        UserError: Slurm does not answer, or is not installed.
    """
    done = run_slurm("scontrol", "--oneliner", "show", "job", job)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise UserError(f"Slurm does not answer: {one_line(done.stderr)}")
    return "" if done.returncode else done.stdout


def accounting(job: str, fields: str) -> str:
    """Fields of a job in Slurm's accounting; empty if the cluster has none."""
    words = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", f"--format={fields}"]
    if shutil.which("sacct") is None:
        return ""
    done = run_slurm(*words)
    return done.stdout.strip() if done.returncode == 0 else ""
