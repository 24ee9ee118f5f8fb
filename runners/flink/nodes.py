"""What an application asks of the nodes that its TaskManagers run on."""

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

    def stop(self) -> None:
        """Ask all that was started to end."""


def end(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for a process that was asked to end, and kill it then."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
