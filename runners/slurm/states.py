"""The states of jobs and of an array's tasks, from Slurm and from logs."""

import collections
import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from runners.slurm.commands import accounting, describe
from runners.slurm.records import Record

MEMORY = "OUT_OF_MEMORY"
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", MEMORY}
ENDED |= {"PREEMPTED", "REVOKED", "TIMEOUT"}
_UNSPECIFIC = {"CANCELLED", "FAILED"}
_KILLED = re.compile(
    r"^slurmstepd\S*: error: .*(oom[-_ ]kill|exceeded .*memory limit)", re.IGNORECASE | re.MULTILINE
)
"""What slurmstepd logs when it kills a step that uses too much memory."""
TAIL = 4096


def named(state: str, log: str) -> str:
    """Slurm's state, or OUT_OF_MEMORY if the log shows that Slurm killed the job for its memory.

    Args:
        state: Slurm's, for example `FAILED`.
        log: of the job.
    """
    return MEMORY if state in _UNSPECIFIC and _was_killed_for_memory(log) else state


def tasks(record: Record) -> dict[str, list[int]]:
    """State -> numbers of an array's tasks; empty for other jobs, or if Slurm has forgotten the array."""
    found = re.findall(r"\bArrayTaskId=(\S+).*?\bJobState=(\S+)", describe(record.job))
    if not found and record.finish:
        known = accounting(record.job, "JobID,State")
        found = re.findall(r"^\d+_\[?([\d,:%-]+)\]?\|(\w+)", known, re.MULTILINE)
    states = collections.defaultdict(list)
    for numbers, state in found:
        for number in _numbers(numbers):
            states[named(state, _log(record, number))].append(number)
    return dict(states)


def summary(record: Record) -> str:
    """How the tasks of an array ended, in one line."""
    found = tasks(record)
    forgotten = not found
    if forgotten:
        pattern = glob.escape(os.path.dirname(record.log)), f"{record.job}_*.log"
        logs = [path for path in glob.glob(os.path.join(*pattern)) if _was_killed_for_memory(path)]
        killed = [int(Path(path).stem.rpartition("_")[2]) for path in logs]
        found = {MEMORY: killed} if killed else {}
    lines = [f"{state} {_ranges(numbers)}" for state, numbers in sorted(found.items())]
    if forgotten:
        lines.append(f"Slurm has forgotten how its tasks ended, see {record.log}")
    if MEMORY in found:
        lines.append("Slurm killed a task for memory, ask for more with --mem")
    return "; ".join(lines)


def _was_killed_for_memory(log: str) -> bool:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - TAIL))  # without messages of earlier starts
            return _KILLED.search(file.read().decode(errors="replace")) is not None
    except OSError:
        return False


def _log(record: Record, task: int) -> str:
    folder, name = os.path.split(record.log)
    return os.path.join(folder, name.replace("%a", str(task)))


def _numbers(text: str) -> Iterator[int]:
    """Parse Slurm's numbers of tasks: `4`, or of pending ones `2-7,9%3` or `1-15:2`."""
    for each in text.partition("%")[0].split(","):
        numbers, _, step = each.partition(":")
        first, _, last = numbers.partition("-")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers as text: `0-2 5` for 0, 1, 2, 5."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
