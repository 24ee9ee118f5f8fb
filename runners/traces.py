"""Stack traces, summarised in one line."""

import re

from beam_zoo.errors import one_line

_PYTHON = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Exit)\b.*$", re.MULTILINE)
CAUSE = re.compile(r"^Caused by: (.*)$", re.MULTILINE)


def summary(text: str) -> str:
    """The line of a stack trace that says most: the last of Python's errors, or Java's last cause."""
    python = text.rpartition("Traceback (most recent call last)")[2] if "Traceback" in text else ""
    if found := _PYTHON.search(python):
        return one_line(found[0])
    causes = CAUSE.findall(text)
    # The innermost often says less than the one around it, which quotes it: "No such file" of what?
    while len(causes) > 1 and causes[-1].partition(": ")[2] in causes[-2]:
        causes.pop()
    return one_line(causes[-1] if causes else text.strip().partition("\n")[0])
