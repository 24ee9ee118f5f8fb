"""Submitted jobs: their state, their logs, and how to cancel them."""

import glob
import os
import re
import shutil
import time
from pathlib import Path

from beam_zoo.errors import UserError
from beam_zoo.plan import plan_file
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import parts
from beam_zoo.storage.layout import MANIFEST, SLURM_JOBS
from runners.slurm import records, states
from runners.slurm.commands import accounting, describe, output_of
from runners.slurm.records import Record
from runners.slurm.states import ENDED


def find(job: str, output: str | None) -> Record:
    """A job's record, by its id.

    Args:
        job: the id that `submit` printed.
        output: folder of the output, or None to ask Slurm where the job's script is.

    Raises:
        UserError: Slurm has forgotten the job, or it was not submitted by this program.
    """
    if not re.fullmatch(r"\d+", job):
        raise UserError(f"a job's id is a number, not {job!r}")
    if output is not None:
        return records.record(output, job)
    for text in (describe(job), accounting(job, "SubmitLine")):
        for path in re.findall(r"(?:Command=| )(/.*?\.sh)(?:\s|$)", text):
            if os.path.basename(os.path.dirname(path)) == SLURM_JOBS:
                return records.record(os.path.dirname(os.path.dirname(path)), job)
    raise UserError(
        f"Slurm does not know a job {job} of python -m runners.slurm (any more): give --output OUT"
    )


def status(record: Record) -> list[str]:
    """Lines with the job's state and the progress of the output."""
    lines = [f"job {record.job} ({record.engine}): {_states(record) or _state(record.job, record.log)}"]
    if record.finish and record.finish_log:
        lines.append(f"job {record.finish} (tables): {_state(record.finish, record.finish_log)}")
    made = plan_file.read(record.output)
    if made is None:
        return [*lines, f"{record.output} has no plan any more"]
    done = parts.stored_parts(made, record.output)
    galaxies = sum(made.snippet(number).size for number in done)
    text = f"galaxies: {galaxies:,} of {made.rows:,} stored"
    rate = _rate(record, made, done)
    if rate and galaxies < made.rows:
        text += f", {rate:.1f} galaxies/s, {_time((made.rows - galaxies) / rate)} left"
    elif rate:
        text += f", {rate:.1f} galaxies/s"
    complete = os.path.exists(os.path.join(record.output, MANIFEST))
    return [*lines, text, f"tables: {'complete' if complete else 'not complete'}, in {record.output}"]


def _rate(record: Record, made: Plan, done: parts.Stored) -> float:
    """Galaxies per second that this job has stored, from its start to its last part."""
    folder = os.path.join(record.output, parts.folders(made)[0])
    begin = _start(record.job) or record.submitted
    times = {}
    for number, refs in done.items():
        moment = os.path.getmtime(os.path.join(folder, refs[0].name))
        if moment >= begin:
            times[number] = moment
    if not times:
        return 0.0
    return sum(made.snippet(number).size for number in times) / max(1.0, max(times.values()) - begin)


def _start(job: str) -> float | None:
    """When the job, or the first task of an array, started, in seconds since 1970."""
    found = re.findall(r"\bStartTime=(\d\S+)", describe(job))
    moments = [time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) for text in found]
    return min((moment for moment in moments if moment <= time.time()), default=None)


def _state(job: str, log: str) -> str:
    """The state of a job that is not an array, with its reason, exit code or times."""
    described = describe(job)
    found = dict(re.findall(r"\b(JobState|Reason|RunTime|TimeLimit|NodeList|ExitCode)=(\S+)", described))
    if not found:
        known = accounting(job, "State,ExitCode,Elapsed").split("\n")[0].split("|")
        if len(known) != 3:
            return "ended; Slurm has forgotten it"
        return f"{known[0]}, exit code {known[1]}, {known[2]}"
    state = states.named(found["JobState"], log)
    if state == "PENDING":
        return f"PENDING ({found['Reason']})"
    if state in ENDED:
        return f"{state}, exit code {found['ExitCode']}, after {found['RunTime']}"
    return f"{state} on {found['NodeList']} for {found['RunTime']} of {found['TimeLimit']}"


def _states(record: Record) -> str:
    """The number of an array's tasks in each state; empty for other jobs."""
    found = states.tasks(record)
    return ", ".join(f"{len(numbers)} {state}" for state, numbers in found.items())


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def not_ended(output: str) -> list[str]:
    """Ids of an output's jobs that are pending or running."""
    ids = [job for record in records.records(output) for job in record.ids]
    return [job for job in ids if _is_waiting_or_running(job)]


def remove_old_keys(output: str, running: list[str]) -> None:
    """Remove the private folders of jobs that were killed.

    Args:
        output: folder of the output.
        running: ids of its jobs that have not ended.
    """
    for record in records.records(output):
        if record.job not in running:
            shutil.rmtree(records.private(output, record.job), ignore_errors=True)


def logs(record: Record) -> list[Path]:
    """The existing logs of a job, of its tasks, and of the job that builds the tables."""
    found = sorted(glob.glob(glob.escape(record.log).replace("%a", "*")))
    if record.finish_log and os.path.exists(record.finish_log):
        found.append(record.finish_log)
    return [Path(path) for path in found]


def other_logs(record: Record) -> list[Path]:
    """Logs of Flink's processes and of the Python workers."""
    return sorted((records.folder(record.output) / record.job).glob("*.log"))


def cancel(record: Record) -> list[str]:
    """Cancel the job, and the one that builds an array's tables.

    Returns:
        Ids of those that had not ended before.
    """
    waiting = [job for job in record.ids if _is_waiting_or_running(job)]
    if waiting:
        output_of("scancel", *waiting)
    return waiting


def is_held(job: str) -> bool:
    """Whether the job is held."""
    return "Reason=JobHeld" in describe(job)


def _is_waiting_or_running(job: str) -> bool:
    return bool(set(re.findall(r"\bJobState=(\S+)", describe(job))) - ENDED)
