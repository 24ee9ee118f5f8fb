"""The command and environment of other Python processes of this program."""

import os
import sys
import sysconfig
from pathlib import Path


def python(module: str, *words: str) -> list[str]:
    """The command that runs a module, without the current folder on its import path."""
    return [sys.executable, "-P", "-m", module, *words]


def import_path() -> dict[str, str]:
    """Environment variables with which Python imports these packages, not those of the current folder."""
    found = {"PYTHONSAFEPATH": "1"}
    ours = str(Path(__file__).resolve().parents[2])
    # PYTHONPATH comes before the standard library: a checkout may, site-packages must not.
    if ours not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        found["PYTHONPATH"] = os.pathsep.join([ours, *(path for path in given if path not in ("", ours))])
    return found
