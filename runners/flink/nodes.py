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

    def stop(self) -> None:
        """Ask all TaskManagers to end."""
