"""What every command does around its work: options first, and one line for a mistake."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from beam_zoo.errors import StorageFull, UserError, known_error
from pipelines.options import OPTIONS, parse, refuse_stray, split_command_line
from pipelines.quiet import set_up_logging

USER_ERROR, STORAGE_FULL, INTERRUPTED = 2, 4, 130


def main(command: str, description: str, argv: list[str] | None = None) -> int:
    """`predict` or `represent`, whole.

    Args:
        command: `predict` or `represent`.
        description: for --help.
        argv: the arguments, by default those of this process.

    Returns:
        The exit code; see `guarded`.
    """

    def work() -> int:
        names = [option.name for option in OPTIONS]
        options = parse(command, description, argv, lambda flags: check_beam(flags, names))
        if options.print_config:
            print(options.describe())
            return 0
        from pipelines.run import execute  # Beam and torch take seconds to import: not for --help

        return execute(command, options)

    return guarded(work)


def guarded(work: Callable[[], int]) -> int:
    """Do a command's work, with one line on stderr for what the user can put right.

    Args:
        work: parses the options and does everything; returns an exit code.

    Returns:
        The exit code: that of the work, 2 for a mistake of the user, 4 for a full disk, 130 for Ctrl-C.
    """
    set_up_logging()
    try:
        with known_errors():
            return work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except StorageFull as error:
        print(f"error: {error}", file=sys.stderr)
        return STORAGE_FULL
    except KeyboardInterrupt:
        print("stopped: what is stored stays, and the same command goes on from there", file=sys.stderr)
        return INTERRUPTED


def parse_simple(parser: argparse.ArgumentParser, argv: list[str] | None) -> tuple[dict[str, Any], list[str]]:
    """The options of a command that has no YAML configs, and Beam's flags, checked.

    Args:
        parser: of the command's own options.
        argv: the arguments, by default those of this process.

    Raises:
        UserError: an unknown option or a wrong value.
    """
    own = [name[2:] for action in parser._actions for name in action.option_strings if name.startswith("--")]
    values, flags, stray = split_command_line(parser, argv)
    check_beam(flags, own)
    refuse_stray(stray)
    return values, flags


def check_beam(flags: list[str], own: list[str]) -> None:
    """Refuse what is no option of Beam, naming the nearest of Beam's or the command's own."""
    if not flags:
        return
    from runners import beam_options

    beam_options.check(flags, [*own, "config", "help"])


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
