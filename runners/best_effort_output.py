"""Standard streams whose write errors are ignored, so that a full disk under a log does not end a job."""

import contextlib
import sys
from typing import Any, TextIO


class BestEffortStream:
    """A text stream that ignores write errors.

    Beam's worker prints the stack trace of an error before it reports the error: where the log is on the disk
    that is full, the report would never be sent, and the job would wait for it.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def use_best_effort_output() -> None:
    """Ignore write errors of this process's standard output and standard error."""
    sys.stdout, sys.stderr = BestEffortStream(sys.stdout), BestEffortStream(sys.stderr)
