"""Logging of the commands: warnings on stderr, and no stack trace for what one line says better."""

import logging

from beam_zoo.errors import known_error


def set_up_logging() -> None:
    """Before Beam is imported: it configures the root logger, and warns of cloud clients that are not needed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_showing)


def _worth_showing(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1] is not None and known_error(record.exc_info[1]):
        return False  # The command ends with this error's one line: a runner's log of it adds nothing.
    return "apitools not found" not in record.getMessage()
