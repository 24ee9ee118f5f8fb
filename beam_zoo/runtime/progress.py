"""Show the progress of a run: of steps in this process, or of what workers on other machines have stored."""

import abc
import contextlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Self

from beam_zoo.errors import RunFailed

_shown: dict[str, "LocalProgress"] = {}
"""Progress by name: steps get a pickled copy of the run, which holds the name."""

BAR_SECONDS = 0.5
LINE_SECONDS = 30.0
COUNT_SECONDS = 5.0


def add(name: str | None, *, inferred: float = 0.0, failed: float = 0.0) -> None:
    """Add to a run's progress; called by steps after every batch and member.

    Args:
        name: of the run's `LocalProgress`, or None to do nothing.
        inferred: galaxies; a galaxy that one of M members has predicted counts 1 / M.
        failed: galaxies that failed.
    """
    if name is not None and (shown := _shown.get(name)):
        shown.add(inferred, failed)


class Progress(abc.ABC):
    """A context that shows a progress bar on a terminal, or lines in a log.

    Args:
        total: galaxies to predict.
        label: text before the numbers.
    """

    afterwards = "0 s left"

    def __init__(self, total: int, label: str) -> None:
        self._total, self._label = total, label
        self._stop = threading.Event()
        self._start = time.monotonic()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @abc.abstractmethod
    def read(self) -> tuple[float, int | None]:
        """Galaxies done (predicted or failed), and failed galaxies, or None if unknown."""

    def _show(self) -> None:
        if sys.stderr.isatty() or "ipykernel" in sys.modules:
            self._show_bar()
        else:
            self._show_lines()

    def _show_bar(self) -> None:
        from tqdm.auto import tqdm  # in a notebook, a widget

        width = os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
        with tqdm(
            total=self._total,
            desc=self._label,
            unit=" galaxies",
            # Some terminals report a size of 0 x 0: tqdm would draw nothing.
            ncols=None if width else 100,
            nrows=None if width else 24,
            dynamic_ncols=width > 0,
            smoothing=0.1,
        ) as bar:
            ended = False
            while not ended:
                ended = self._stop.wait(BAR_SECONDS)
                done, failed = self.read()
                if failed is not None:
                    bar.set_postfix_str(f"{failed} failed", refresh=False)
                bar.update(int(done) - bar.n)
                bar.refresh()

    def _show_lines(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(LINE_SECONDS)
            done, failed = self.read()
            seconds = time.monotonic() - self._start
            rate = done / seconds
            if ended or not rate:
                left = f"after {seconds:.0f} s"
            else:
                left = f"{(self._total - done) / rate:.0f} s left" if done < self._total else self.afterwards
            text = f"{self._label}: {int(done):,} of {self._total:,} galaxies, {rate:.1f} galaxies/s, {left}"
            print(text if failed is None else f"{text}, {failed} failed", file=sys.stderr, flush=True)


class LocalProgress(Progress):
    """Progress of steps in this process."""

    def __init__(self, total: int, label: str) -> None:
        super().__init__(total, label)
        self.name = uuid.uuid4().hex
        self._adding = threading.Lock()
        self._inferred = self._failed = 0.0

    def __enter__(self) -> Self:
        _shown[self.name] = self
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        del _shown[self.name]

    def add(self, inferred: float, failed: float) -> None:
        """See the function `add`."""
        with self._adding:
            self._inferred += inferred
            self._failed += failed

    def read(self) -> tuple[float, int]:
        """Galaxies done (predicted or failed), and failed galaxies."""
        return round(self._inferred + self._failed, 6), int(self._failed)  # fractions may add up to 0.999...


class StoredProgress(Progress):
    """Progress of workers on other machines, from the galaxies that are stored.

    Args:
        total: galaxies to predict.
        label: text before the numbers.
        count: returns how many of them are stored.
    """

    afterwards = "all stored, now the tables"

    def __init__(self, total: int, label: str, count: Callable[[], int]) -> None:
        super().__init__(total, label)
        self._count = count
        self._counted, self._next = 0, 0.0

    def read(self) -> tuple[float, int | None]:
        """Galaxies done; failures are unknown until the tables are built."""
        # Counting lists a folder, perhaps of a bucket: less often than the bar is drawn.
        begin = time.monotonic()
        if begin >= self._next or self._stop.is_set():
            with contextlib.suppress(OSError, RunFailed):  # an error here must not end the run
                self._counted = self._count()
            self._next = time.monotonic() + max(COUNT_SECONDS, 10 * (time.monotonic() - begin))
        return self._counted, None
