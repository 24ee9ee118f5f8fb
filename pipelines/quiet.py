"""Logging of the commands: warnings on stderr, a line each."""

import logging


def set_up_logging() -> None:
    """Before Beam is imported: it configures the root logger, and warns of cloud clients that are not needed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: "apitools not found" not in record.getMessage())
