"""The interface through which an application starts and stops TaskManagers on nodes."""

import subprocess
from pathlib import Path
from typing import Protocol

MISTAKE = 78
"""Exit code of a TaskManager whose last line says what the user has to put right (EX_CONFIG of sysexits.h)."""


class Nodes(Protocol):
    """Where TaskManagers run.

    Attributes:
        address: of this host, as the other hosts reach it.
        names: of the TaskManagers, one a slot.
    """

    address: str
    names: list[str]

    def start(
        self, name: str, identity: str, environment: dict[str, str], flink: Path, log: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a TaskManager; the process ends when it does.

        Args:
            name: one of `names`.
            identity: what it registers as.
            environment: of Flink's scripts.
            flink: Flink's folder.
            log: where its output goes.
        """

    def start_here(
        self, words: list[str], environment: dict[str, str], log: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a program on this host that ends with the job, even if this process is killed."""

    def reaches(self, name: str) -> bool:
        """Whether the host of a TaskManager answers on the network."""

    def refusal(self, log: Path) -> str:
        """What is said of the last start with this log where nothing has written to it; may be empty."""

    def stop(self) -> None:
        """Ask all that was started to end."""


class Start:
    """A start of a program: whether it has said anything since.

    Args:
        nodes: what starts it.
        log: where its output goes, behind what is there.
    """

    def __init__(self, nodes: Nodes, log: Path) -> None:
        self._nodes, self._log, self._before = nodes, log, _size(log)

    def refusal(self) -> str:
        """Why the program never began, once it is known to have ended; empty if it began."""
        return "" if _size(self._log) > self._before else self._nodes.refusal(self._log)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def end(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for a process that was asked to end, and kill it then."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
