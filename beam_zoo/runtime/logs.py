"""Logging of commands and workers: warnings, and no stack trace for what one line says better."""

import logging
import warnings

from beam_zoo.errors import known_error, known_error_in
from beam_zoo.runtime.tuning import is_ours

# Cloud clients that are not needed; settings of Beam that are as they should be here.
_OF_NO_USE = (
    "apitools not found",
    "Authentication failed using Compute Engine authentication",  # the command says what to do
    "No semi_persistent_directory",
    "Really starting service",
    "Really destroying service",
)
_JAVA_TRACE = "\n\tat "


def set_up_logging() -> None:
    """Before Beam is imported: it configures the root logger, and warns of cloud clients that are not needed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    quieten()


def quieten() -> None:
    """In a command or a worker, whose handlers belong to its runner: the same filter, and warnings only."""
    if not is_ours():
        return
    # Pillow's own limit is above ours: we refuse those images, with a reason.
    warnings.filterwarnings("ignore", message=".*decompression bomb", module="PIL")
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        if worth_showing not in handler.filters:
            handler.addFilter(worth_showing)


def worth_showing(record: logging.LogRecord) -> bool:
    """Whether a log record says something that the user would otherwise not see."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (known_error(error) or was_interrupted(error)):
        return False
    text = record.getMessage() + (record.exc_text or "")
    if _JAVA_TRACE in text:  # of a job that failed: the command says why at its end
        return False
    # The command itself reports errors of ours, in one line at its end.
    if known_error_in(text) or "KeyboardInterrupt" in text:
        return False
    return not any(words in text for words in _OF_NO_USE)


def was_interrupted(error: BaseException) -> bool:
    """Whether an error is Ctrl-C (or SIGTERM), perhaps wrapped by a runner."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__
    return "KeyboardInterrupt" in str(error)
