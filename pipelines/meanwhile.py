"""Table parts are built while others are predicted, by one more process: beside a GPU, where the cores have time for it.

`predict` starts it with the folder of the output, and ends it with its standard input. It says nothing if all goes well; what it
leaves, or cannot do, the command does afterwards.
"""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from beam_zoo.runtime.malloc import keep_freed_memory

LOGGER = logging.getLogger("beam_zoo")
PAUSE_S, SHARE = 2.0, 0.05
"""It looks for what is complete after a pause of so many seconds, or more: looking takes this share of the time at most."""


@contextlib.contextmanager
def tables_meanwhile(output: str) -> Iterator[None]:
    """While the context lasts, table parts whose samples are all stored are built.

    Args:
        output: folder of the output, with its plan.
    """
    words = [sys.executable, "-m", "pipelines.meanwhile", output]
    # A group of its own: Ctrl-C in a terminal means the command, which ends this.
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
    ) as process:
        assert process.stdin is not None
        try:
            yield
        except BaseException:
            process.kill()  # a table part is there as a whole or not at all
            raise
        process.stdin.close()
        if code := process.wait():
            LOGGER.warning(
                "the process that builds tables meanwhile ended with code %d: what it left is built now", code
            )


def main(argv: list[str] | None = None) -> int:
    """`python -m pipelines.meanwhile OUT`; returns its exit code."""
    (output,) = sys.argv[1:] if argv is None else argv
    keep_freed_memory()
    building = threading.Lock()
    threading.Thread(target=_end_with_input, args=[building], daemon=True).start()

    from beam_zoo.errors import one_line
    from beam_zoo.plan import plan
    from beam_zoo.plan.run import Run
    from beam_zoo.runtime.logs import set_up_logging
    from pipelines.build import build_complete

    set_up_logging()
    made = plan.read(output)
    assert made is not None
    run = Run(made, output, made.image_root, 1, "cpu")
    built: set[int] = set()
    while True:
        begin = time.monotonic()
        with building:
            try:
                some = build_complete(run, built)
            except Exception as error:
                print(f"note: no tables are built meanwhile: {one_line(error)}", file=sys.stderr)
                return 0
        if not some:
            time.sleep(max(PAUSE_S, (time.monotonic() - begin) / SHARE))


def _end_with_input(building: threading.Lock) -> None:
    sys.stdin.read()
    with building:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
