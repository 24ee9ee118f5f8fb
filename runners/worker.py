"""A worker process of the local runner: Beam's own, with this program's logging instead of a line for every step."""

import logging
import os
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

    _end_with_runner()
    sdk_worker_main.main(sys.argv)


def _end_with_runner() -> None:
    """Where the runner has gone in the middle of its work (Ctrl-C), this process ends at once.

    Beam would tear the steps down while they are at work, and their complaints would follow the command's own last line.
    What they store is there as a whole or not at all.
    """
    from apache_beam.runners.worker import sdk_worker

    class Cache(sdk_worker.BundleProcessorCache):
        def shutdown(self) -> None:
            if self.active_bundle_processors:
                os._exit(0)
            super().shutdown()

    sdk_worker.BundleProcessorCache = Cache  # type: ignore[misc]


if __name__ == "__main__":
    main()
