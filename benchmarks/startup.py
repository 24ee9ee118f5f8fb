"""From the command to the first image predicted, and to the help.

    python -m benchmarks.startup

2 members (convnext_nano), 8 galaxies of 424 px; every run a process of its own. Beside it: how long torch,
Beam and zoobot alone take to be imported, which the command does in part at the same time.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import workload

IMPORTS = "import apache_beam, torch; from zoobot.pytorch.estimators import define_model"


def first_image(folder: Path) -> None:
    """In a process of its own: print the moment when the first images were through the first encoder."""
    from beam_zoo.inference.handler import MemberModel
    from pipelines import predict

    encode, moments = MemberModel._encode, []

    def noted(model: MemberModel, images: Any) -> Any:
        found = encode(model, images)
        moments.append(time.time())
        return found

    with mock.patch.object(MemberModel, "_encode", noted):
        assert predict.main(workload.predict_words(folder, folder / f"out-{time.time_ns()}")) == 0
    print(moments[0])


def seconds(words: list[str], *, printed: bool = False) -> float:
    """From the start of a process to its end, or to the moment that it prints."""
    begin = time.time()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    return (float(done.stdout.splitlines()[-1]) if printed else time.time()) - begin


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="From the command to the first image predicted.")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.folder:
        first_image(options.folder)
        return
    print(workload.describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workload.write_catalogue(folder, 8)
        workload.write_members(folder)
        me = ["-m", "benchmarks.startup", "--folder", name]
        found = [
            (
                seconds(["-m", "pipelines.predict", "--help"]),
                seconds(["-c", IMPORTS]),
                seconds(me, printed=True),
            )
            for _ in range(options.times + 1)
        ][1:]
    names = ("--help", "imports alone", "first image")
    for what, values in zip(names, zip(*found, strict=True), strict=True):
        print(f"{what:14} {statistics.median(values):6.2f} s ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
