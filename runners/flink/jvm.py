"""The Java of this machine."""

import os
import re
import shutil
import subprocess

from beam_zoo.errors import UserError

VERSIONS = (11, 17)
NEEDED = "Flink 1.19 needs Java 11 or 17: load a module, or set JAVA_HOME"


def java() -> str | None:
    """The program that Flink's scripts would start, or None."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(os.path.join(home, "bin", "java") if home else "java")


def version() -> int | None:
    """Its version, such as 17, or None where there is no Java."""
    program = java()
    if program is None:
        return None
    done = subprocess.run([program, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found else None


def check() -> None:
    """Refuse a machine without a Java that Flink runs on.

    Raises:
        UserError: there is none, or of another version.
    """
    found = version()
    if found not in VERSIONS:
        what = "there is none" if found is None else f"this is Java {found}"
        raise UserError(f"{what} on {os.uname().nodename} ({java() or 'no java on the PATH'}): {NEEDED}")
