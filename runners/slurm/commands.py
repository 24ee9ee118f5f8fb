"""Run Slurm's commands, without options from environment variables."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from beam_zoo.errors import UserError, one_line

_OF_SLURM = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SCANCEL|SCONTROL|SQUEUE|SACCT|SINFO)_")
_FINDS_IT = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}
"""Variables of Slurm's commands that say which cluster, and who asks; all others stand for options."""


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
    """Run a command of Slurm; environment variables of the user, or of an enclosing job, add no options.

    Raises:
        UserError: it is not there.
        TimeoutExpired: it has not answered.
    """
    # A long list of an array's tasks is not cut off.
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
    """Environment variables without those that Slurm's commands take for options."""
    return {
        name: value for name, value in environment.items() if name in _FINDS_IT or not _OF_SLURM.match(name)
    }


def describe(job: str) -> str:
    """Slurm's description of a job, a line a task; empty when it has forgotten it.

    Raises:
        UserError: Slurm does not answer, or is not there.
    """
    done = run_slurm("scontrol", "--oneliner", "show", "job", job)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise UserError(f"Slurm does not answer: {one_line(done.stderr)}")
    return "" if done.returncode else done.stdout


def accounting(job: str, fields: str) -> str:
    """What Slurm's accounting, where a cluster has one, remembers of a job."""
    words = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", f"--format={fields}"]
    if shutil.which("sacct") is None:
        return ""
    done = run_slurm(*words)
    return done.stdout.strip() if done.returncode == 0 else ""
