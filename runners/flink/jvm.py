"""The Java of this machine."""

import os
import re
import shutil
import subprocess

from beam_zoo.errors import UserError

VERSIONS = (11, 17)
NEEDED = "Flink 1.19 needs Java 11 or 17: load a module, or set JAVA_HOME"


def java() -> str | None:
    """The path of the Java program that Flink's scripts would start, or None."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(os.path.join(home, "bin", "java") if home else "java")


def version() -> int | None:
    """The version of Java, such as 17, or None if there is none."""
    program = java()
    if program is None:
        return None
    done = subprocess.run([program, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found else None


def check() -> None:
    """Check that this machine has a Java that Flink supports.

    Raises:
        UserError: there is none, or another version.
    """
    found = version()
    if found not in VERSIONS:
        what = "there is none" if found is None else f"this is Java {found}"
        raise UserError(f"{what} on {os.uname().nodename} ({java() or 'no java on the PATH'}): {NEEDED}")
