"""A worker process of the local runner: Beam's own, with this program's logging instead of a line for every step."""

import logging
import sys
from typing import Any, TextIO

from beam_zoo.quiet import is_reported, set_up_logging


class _Stderr:
    """stderr without the stack traces of errors that the command itself reports: Beam prints each one there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if is_reported(text) else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main() -> None:
    """Serve the runner that started this process, until it ends."""
    sys.stderr = _Stderr(sys.stderr)
    set_up_logging()
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)  # Beam sets the root logger to INFO while it starts
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
