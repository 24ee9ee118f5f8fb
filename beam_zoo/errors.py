"""The errors that end a command in one line, and how a line names the nearest valid choice."""

import difflib
import errno
import os
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can put right. Its text is one line that says what to do; exit code 2.

    >>> try:
    ...     beam_zoo.open_output("OUTT")
    ... except beam_zoo.UserError as error:
    ...     print(error)
    there is no output .../OUTT (did you mean 'OUT'?)
    """

    def __str__(self) -> str:
        # Names that the user gave may hold line breaks.
        return re.sub(r"[\r\n]+", " ", super().__str__())


class RunFailed(Exception):
    """A failure that may pass: the same command, run again, goes on where this one stopped. Exit code 1.

    >>> settings = dict(catalogue="galaxies.csv", models=["a.yaml", "b.yaml"], output="OUT", passes=2)
    >>> try:
    ...     output = beam_zoo.predict(**settings)
    ... except beam_zoo.RunFailed:
    ...     output = beam_zoo.predict(**settings)
    """


class TooManyFailures(Exception):
    """The output is complete, but more galaxies failed than `max_failure_fraction` allows. Exit code 3.

    >>> try:
    ...     beam_zoo.finish("OUT", max_failure_fraction=0.01)
    ... except beam_zoo.TooManyFailures:
    ...     print(beam_zoo.open_output("OUT").failures())
    <Output .../OUT: predict, 8 of 8 galaxies predicted, 0 failed>
    """


def is_out_of_reach(error: BaseException) -> bool:
    """Whether a file could not be read just now: that says nothing of what is in it.

    pyarrow raises an OSError of its own, without a number, for damaged content.
    """
    if isinstance(error, RunFailed):
        return True
    return isinstance(error, OSError) and error.errno not in (None, 0, errno.ENOENT, errno.ENOTDIR)


class StorageFull(Exception):
    """The output's disk or quota is full; what was stored before stays. Exit code 4.

    >>> try:
    ...     output = beam_zoo.represent(catalogue="galaxies.csv", models=["a.yaml"], output="A")
    ... except beam_zoo.StorageFull as error:
    ...     print("make room, and run it again:", error)
    """


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """The end of an error line: the nearest valid choice, or all of them where they are few.

    Args:
        wrong: what the user wrote.
        valid: every choice that would have been accepted.

    Returns:
        For example `" (did you mean 'minimal'?)"`, `" (choose from a, b)"`, or an empty string.
    """
    choices = sorted(map(str, valid))
    # Another case of letters is no difference: `RA` is near `ra`.
    folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(str(wrong).casefold(), list(folded), n=1, cutoff=0.6)
    if near:
        return f" (did you mean {folded[near[0]]!r}?)"
    if 0 < len(choices) <= 12:
        return f" (choose from {', '.join(choices)})"
    return ""


def near_path(path: str) -> str:
    """The end of an error line about a path that does not exist: what the folder has instead.

    Args:
        path: what the user wrote.

    Returns:
        The nearest name beside it, or where the path stops to exist, or an empty string.
    """
    if "://" in path:
        return ""
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        while not os.path.isdir(folder):
            name, folder = os.path.basename(folder), os.path.dirname(folder)
        return f": {folder} has no folder {name!r}{did_you_mean(name, _names(folder))}"
    return did_you_mean(name, _names(folder))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def one_line(error: object, limit: int = 500) -> str:
    """An exception's text on one line, so that it fits an error line or a table's cell."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


_Known = UserError | StorageFull | RunFailed
_KINDS: dict[str, type[_Known]] = {kind.__name__: kind for kind in (UserError, StorageFull, RunFailed)}
_HEADER = "Traceback (most recent call last):\n"
_EXCEPTION = re.compile(rf"beam_zoo\.errors\.({'|'.join(_KINDS)}): (.*)")
_STEP = re.compile(r" \[while running '.*", re.DOTALL)
"""What Beam appends to the text of an error: the name of the step."""


def known_error(error: BaseException) -> _Known | None:
    """The error of this module that a runner wrapped, if there is one.

    Runners raise a worker's exception again in several shapes: the same type with "[while running
    'step']" appended, a chained cause, or an exception whose text contains the worker's stack trace.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _Known):
            text = _STEP.sub("", str(seen))
            return seen if text == str(seen) else type(seen)(text)
        seen = seen.__cause__ or seen.__context__
    return known_error_in(str(error))


def known_error_in(text: str) -> _Known | None:
    """The error of this module that a text's last stack trace ends in, if there is one.

    Only the line that names the exception counts: a file name or a message may contain anything.
    """
    found = _EXCEPTION.match(exception_line(text) or "")
    return _KINDS[found[1]](_STEP.sub("", found[2])) if found else None


def exception_line(text: str) -> str | None:
    """The line of a text's last Python stack trace that names the exception; None without a stack trace.

    >>> exception_line("1: Traceback (most recent call last):\\n  File 'a.py', line 1\\nKeyError: 'b'\\n")
    "KeyError: 'b'"
    """
    # Frames are indented, the exception is not. In a message, no line break follows a quoted header.
    _, header, trace = text.rpartition(_HEADER)
    lines = (line for line in trace.splitlines() if line and not line[0].isspace())
    return next(lines, None) if header else None
