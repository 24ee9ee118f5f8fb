"""Stack traces, summarised in one line."""

import re

from beam_zoo.errors import exception_line, one_line

CAUSE = re.compile(r"^Caused by: (.*)$", re.MULTILINE)


def summary(text: str) -> str:
    """The line of a stack trace that says most: Python's last exception, or else Java's last cause."""
    if line := exception_line(text):
        return one_line(line)
    causes = CAUSE.findall(text)
    # The innermost cause often says less than the one around it, which quotes it: "No such file" of which
    # file?
    while len(causes) > 1 and causes[-1].partition(": ")[2] in causes[-2]:
        causes.pop()
    return one_line(causes[-1] if causes else text.strip().partition("\n")[0])
