"""Logging of commands and workers: warnings, without stack traces of errors that are reported in one line."""

import logging
import warnings

from beam_zoo.errors import known_error, known_error_in
from beam_zoo.runtime.tuning import is_ours

# Messages about cloud clients that are not needed, and about settings of Beam that are right here.
_HIDDEN = (
    "apitools not found",
    "Authentication failed using Compute Engine authentication",  # the command says what to do
    "No semi_persistent_directory",
    "Really starting service",
    "Really destroying service",
)
_JAVA_TRACE = "\n\tat "


def set_up_logging() -> None:
    """Configure the root logger, before Beam does at its import."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    quieten()


def quieten() -> None:
    """Show warnings only, and filter them, with the handlers that exist; in a caller's process do nothing."""
    if not is_ours():
        return
    # `decode` refuses such images itself.
    warnings.filterwarnings("ignore", message=".*decompression bomb", module="PIL")
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        if worth_showing not in handler.filters:
            handler.addFilter(worth_showing)


def worth_showing(record: logging.LogRecord) -> bool:
    """Whether the user should see a log record."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (known_error(error) or was_interrupted(error)):
        return False
    text = record.getMessage() + (record.exc_text or "")
    # The command itself reports errors in one line at its end.
    if _JAVA_TRACE in text or known_error_in(text) or "KeyboardInterrupt" in text:
        return False
    return not any(words in text for words in _HIDDEN)


def was_interrupted(error: BaseException) -> bool:
    """Whether an error is Ctrl-C (or SIGTERM), perhaps wrapped by a runner."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__
    return "KeyboardInterrupt" in str(error)
