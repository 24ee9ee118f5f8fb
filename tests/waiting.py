"""Waiting for something that other processes do, by looking at it again and again."""

import time
from collections.abc import Callable


def wait_for(
    condition: Callable[[], object],
    seconds: float,
    why: Callable[[], object] = str,
    *,
    every: float = 0.2,
) -> None:
    """Return as soon as a condition holds.

    Args:
        condition: true when there is nothing to wait for any more; it may raise where that can no longer
            happen.
        seconds: after which it must hold.
        why: what the failure of the test then shows, such as a log.
        every: seconds between two looks.

    Raises:
        AssertionError: it does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(every)
