"""The interface through which an application starts and stops TaskManagers on nodes."""

import subprocess
from pathlib import Path
from typing import Protocol

MISTAKE = 78
"""Exit code of a TaskManager whose last line is an error that the user can correct (EX_CONFIG)."""


class Nodes(Protocol):
    """Starts and stops TaskManagers.

    Attributes:
        address: IP address of this host for other hosts.
        names: of the TaskManagers.
    """

    address: str
    names: list[str]

    def start(
        self, name: str, identity: str, environment: dict[str, str], flink: Path, log: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a TaskManager.

        Args:
            name: one of `names`.
            identity: id under which it registers.
            environment: variables of Flink's scripts.
            flink: Flink's folder.
            log: file to which its output is appended.

        Returns:
            A process that ends when the TaskManager does.
        """

    def start_here(
        self, words: list[str], environment: dict[str, str], log: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a program on this host that ends with the job, even if this process is killed."""

    def reaches(self, name: str) -> bool:
        """Whether the host of a TaskManager answers on the network."""

    def refusal(self, log: Path) -> str:
        """Why the last program with this log could not be started; may be empty."""

    def stop(self) -> None:
        """Ask all started programs to end."""


class Start:
    """The start of a program; to be made before it starts.

    Args:
        nodes: starts it.
        log: file to which its output is appended.
    """

    def __init__(self, nodes: Nodes, log: Path) -> None:
        self._nodes, self._log, self._before = nodes, log, _size(log)

    def refusal(self) -> str:
        """Why an ended program never ran; empty if it has written to its log."""
        return "" if _size(self._log) > self._before else self._nodes.refusal(self._log)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def end(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for a process that was asked to end, and kill it if that takes longer."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
