"""A worker process of the local runner: Beam's own, with this program's logging instead of a line for every step."""

import logging
import sys

from beam_zoo.quiet import is_reported, set_up_logging
from runners.forgiving import Forgiving


class _Stderr(Forgiving):
    """stderr without the stack traces of errors that the command itself reports: Beam prints each one there."""

    def write(self, text: str) -> int:
        return len(text) if is_reported(text) else super().write(text)


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
