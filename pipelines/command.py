"""What every command does around its work: options first, and one line for a mistake."""

import contextlib
import sys
from collections.abc import Iterator

from beam_zoo.errors import StorageFull, UserError, known_error
from pipelines.options import OPTIONS, parse
from pipelines.quiet import set_up_logging

USER_ERROR, STORAGE_FULL, INTERRUPTED = 2, 4, 130


def main(command: str, description: str, argv: list[str] | None = None) -> int:
    """A whole command.

    Args:
        command: `predict` or `represent`.
        description: for --help.
        argv: the arguments, by default those of this process.

    Returns:
        The exit code: 0, 2 for a mistake of the user, 3 for too many failures, 4 for a full disk.
    """
    set_up_logging()
    try:
        with known_errors():
            options = parse(command, description, argv, _check_beam)
            if options.print_config:
                print(options.describe())
                return 0
            from pipelines.run import execute  # Beam and torch take seconds to import: not for --help

            return execute(command, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except StorageFull as error:
        print(f"error: {error}", file=sys.stderr)
        return STORAGE_FULL
    except KeyboardInterrupt:
        print("stopped: what is stored stays, and the same command goes on from there", file=sys.stderr)
        return INTERRUPTED


def _check_beam(flags: list[str]) -> None:
    from runners import beam_options

    beam_options.check(flags, [*(option.name for option in OPTIONS), "config", "help"])


@contextlib.contextmanager
def known_errors() -> Iterator[None]:
    """Unwrap errors of ours from what a runner raises; others stay as they are."""
    try:
        yield
    except Exception as error:
        known = known_error(error)
        if known is None:
            raise
        raise known from None
