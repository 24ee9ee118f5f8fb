"""Failures of a Flink job, summarised in one line. Errors that a restart cannot correct end the job."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from beam_zoo.errors import RunFailed, known_error_in, one_line
from runners.stack_traces import CAUSE, summary

CANNOT_START = re.compile(r"Process died with exit code -?\d+")
STARTS, RECENT = 2, 600_000
"""The job ends if so many workers could not start in so many milliseconds."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """A failure of the job.

    Attributes:
        moment: in milliseconds since 1970.
        text: Java's stack trace, which contains that of a Python worker if there is one.
    """

    moment: int
    text: str


class Failures:
    """Keeps track of a job's failures.

    Args:
        logs: folder of the workers' logs.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._seen: set[Failure] = set()
        self._no_starts: list[int] = []

    def look(self, found: Iterable[Failure]) -> list[str]:
        """A summary of each failure that was not in an earlier call.

        Raises:
            UserError, StorageFull: the error of a worker, which a restart cannot correct.
            RunFailed: workers cannot start.
        """
        new = [failure for failure in found if failure not in self._seen]
        self._seen.update(new)
        for failure in new:
            if CANNOT_START.search(failure.text):
                recent = [moment for moment in self._no_starts if failure.moment - moment < RECENT]
                self._no_starts = [*recent, failure.moment]
            if known_error_in(failure.text) or len(self._no_starts) >= STARTS:
                raise self.error(failure.text)
        return [summary(failure.text) for failure in new]

    def error(self, text: str) -> Exception:
        """The error that ends the command.

        Args:
            text: Java's stack trace.
        """
        if known := known_error_in(text):
            return known
        if CANNOT_START.search(text):
            newest = max(self._logs.glob("worker-*.log"), key=lambda log: log.stat().st_mtime, default=None)
            why = f"{last_line(newest)}; see {newest}" if newest else f"it left no log in {self._logs}"
            return RunFailed(f"a Python worker cannot start: {why}")
        return RunFailed(f"Flink's job failed: {summary(text)}; the same command goes on, see {self._logs}")


def last_cause(log: Path) -> str:
    """The last cause in a log of Flink's, or else its last line."""
    # A JobManager that ends may log ClassNotFoundException after the error that made it end.
    causes = [cause for cause in CAUSE.findall(_tail(log)) if "ClassNotFoundException" not in cause]
    return one_line(causes[-1]) if causes else last_line(log)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty; empty if there is none."""
    return next((one_line(line) for line in reversed(_tail(log).splitlines()) if line.strip()), "")


def _tail(log: Path, size: int = 1 << 16) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
