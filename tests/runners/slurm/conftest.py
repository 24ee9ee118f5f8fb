"""Programs of Slurm's names, where there is no Slurm."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program on the PATH that prints a text, whatever it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, text: str, code: int = 0) -> Path:
        path = folder / name
        where = " >&2" if code else ""
        path.write_text(f"#!/bin/sh\ncat{where} <<'END'\n{text}\nEND\nexit {code}\n")
        path.chmod(0o755)
        return path

    return write
