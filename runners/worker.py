"""A worker process of the local runner: Beam's own, with this program's logging instead of a line for every step."""

import atexit
import logging
import os
import signal
import sys

from beam_zoo.quiet import is_reported, set_up_logging
from runners.forgiving import Forgiving


class _Stderr(Forgiving):
    """stderr without the stack traces of errors that the command itself reports: Beam prints each one there."""

    silent = False

    def write(self, text: str) -> int:
        return len(text) if self.silent or is_reported(text) else super().write(text)


def main() -> None:
    """Serve the runner that started this process, until it ends."""
    # Ctrl-C in a terminal means all processes: the command hears it, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stderr = sys.stderr = _Stderr(sys.stderr)
    set_up_logging()
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)  # Beam sets the root logger to INFO while it starts
    from apache_beam.runners.worker import sdk_worker_main

    _end_with_runner(stderr)
    sdk_worker_main.main(sys.argv)


def _end_with_runner(stderr: _Stderr) -> None:
    """Where the runner ends in the middle of the work, because the command was stopped, this process ends without a word.

    Beam tears steps down, by which parts that are being written are finished, while others are still at work in them: they fail,
    and nobody is to hear of it. Nor is the interpreter taken down around them, which the libraries' threads would not survive.
    """
    from apache_beam.runners.worker import sdk_worker

    class Cache(sdk_worker.BundleProcessorCache):
        def shutdown(self) -> None:
            at_work = bool(self.active_bundle_processors or self.processors_being_created)
            if at_work:
                stderr.silent = True
                logging.disable()
            try:
                super().shutdown()
            finally:
                if at_work:
                    atexit._run_exitfuncs()
                    os._exit(0)

    sdk_worker.BundleProcessorCache = Cache  # type: ignore[misc]


if __name__ == "__main__":
    main()
