"""What every command does around its work: options first, and one line for a mistake."""

import argparse
import contextlib
import dataclasses
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from beam_zoo.errors import RunFailed, StorageFull, TooManyFailures, UserError, known_error
from beam_zoo.runtime.logs import set_up_logging, was_interrupted
from beam_zoo.runtime.python import import_path
from pipelines.command_line import parse, refuse_stray, split_command_line
from pipelines.options import BY_NAME, Options

RUN_FAILED, USER_ERROR, TOO_MANY_FAILURES, STORAGE_FULL = 1, 2, 3, 4


def run(
    command: str, description: str, argv: list[str] | None, execute: Callable[[str, Options], None]
) -> int:
    """`predict` or `represent`, whole.

    Args:
        command: `predict` or `represent`.
        description: for --help.
        argv: the arguments, by default those of this process.
        execute: does the work; takes the command's name and its options.

    Returns:
        The exit code; see `guarded`.
    """

    def work() -> int:
        options = parse_checked(command, description, argv)
        if options.show.print_config:
            print(options.describe())
            return 0
        from runners import cluster  # Beam takes seconds to import: not for --help

        cluster.check(options.beam)
        execute(command, options)
        return 0

    return guarded(work)


def parse_checked(command: str, description: str, argv: Sequence[str] | None) -> Options:
    """The options of `predict` or `represent`, Beam's among them checked too.

    Args:
        command: `predict` or `represent`.
        description: for --help.
        argv: the arguments, by default those of this process.

    Raises:
        UserError: an unknown option or a wrong value.
    """
    options = parse(command, description, argv, lambda flags: check_beam(flags, [*BY_NAME]))
    return for_dataflow(command, options)


def for_dataflow(command: str, options: Options) -> Options:
    """The options with what a run on Dataflow has besides."""
    name, fit = options.dataflow.dataflow_preset, options.dataflow.dataflow_right_fitting
    asked = [*(["dataflow_preset"] if name else []), *(["dataflow_right_fitting"] if fit else [])]
    if not asked and not any(flag.startswith("--runner") for flag in options.beam):
        return options  # without importing Beam
    from runners import beam_options
    from runners.dataflow import preset

    if beam_options.runner_name(options.beam) != beam_options.DATAFLOW:
        if asked:
            raise UserError(f"--{asked[0]} is for --runner={beam_options.DATAFLOW}")
        return options
    if fit and name in (None, "cpu"):
        raise UserError("--dataflow_right_fitting needs a --dataflow_preset with a GPU")
    added = preset.complete(options.beam, name, fit, options.work.output or "", command)
    return dataclasses.replace(options, origins=options.origins | added, beam=[*options.beam, *added])


def guarded(work: Callable[[], int]) -> int:
    """Do a command's work, with one line on stderr for what the user can put right.

    Args:
        work: parses the options and does everything; returns an exit code.

    Returns:
        The exit code: that of the work, 2 for a mistake of the user, 3 for too many failures, 4 for a full
        disk, 130 for Ctrl-C, 143 for SIGTERM.
    """
    os.environ |= import_path()  # for all processes that this one starts
    set_up_logging()
    stopped: list[int] = []
    try:
        with known_errors(), _terminated_like_interrupted(stopped):
            return work()
    except UserError as error:
        return _end(USER_ERROR, f"error: {error}")
    except StorageFull as error:
        return _end(STORAGE_FULL, f"error: {error}")
    except TooManyFailures as error:
        return _end(TOO_MANY_FAILURES, f"error: {error}")
    except RunFailed as error:
        return _end(RUN_FAILED, f"error: {error}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        return _end(STORAGE_FULL if full else USER_ERROR, f"error: {text}")
    except KeyboardInterrupt:
        text = "stopped: what is stored stays, and the same command goes on from there"
        return _end(128 + (stopped[0] if stopped else signal.SIGINT), text)


def _end(code: int, line: str) -> int:
    print(line, file=sys.stderr)
    return code


@contextlib.contextmanager
def _terminated_like_interrupted(stopped: list[int]) -> Iterator[None]:
    """SIGTERM, which batch systems send before they kill, cleans up as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        if len(stopped) == 1:  # a second one is not to disturb the cleaning up
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
        if was_interrupted(error):
            raise KeyboardInterrupt from None
        known = known_error(error)
        if known is None:
            raise
        raise known from None
