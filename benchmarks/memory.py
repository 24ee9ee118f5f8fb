"""Peak memory of the commands that go over a whole output, for a small and a four times larger catalogue.

`python -m benchmarks.memory` makes outputs of random samples (2 members x 5 passes x 34 answers, no images),
runs `finish`, `audit`, `export` and `aggregate` (of the output and of more passes in another order) on each,
and prints the largest resident set of a process of each command. It must not grow with the catalogue, except
for 8 bytes a galaxy with which the audit checks that ids are unique. `--predict --rows 100000 --times 10`
measures prediction, without models.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import workload
from benchmarks.planned import write_plan

MEMBERS, PASSES = ("a", "b"), 5


def make(
    output: Path, checkpoint: Path, rows: int, *, first_pass: int = 0, seed: int = 0, shuffled: bool = False
) -> None:
    """An output whose samples are all stored, without its tables."""
    from beam_zoo.samples import part_writer
    from beam_zoo.samples.records import Batch

    made = write_plan(output, checkpoint, rows, MEMBERS, PASSES, first_pass=first_pass, shuffled=shuffled)
    random = np.random.default_rng(seed)
    for number in range(made.snippets):
        snippet = made.snippet(number)
        shape = (snippet.size, PASSES, len(made.outputs))
        outputs = {m.name: random.uniform(1, 101, shape).astype(np.float32) for m in made.members}
        keys = np.zeros(snippet.size, np.uint64)
        batch = Batch(np.arange(snippet.size), keys, {}, outputs, [])
        part_writer.write_parts(made, str(output), snippet, [batch])


def peak(arguments: list[str]) -> float:
    """Largest resident set of one command, MiB."""
    program = (
        "import resource, subprocess, sys\n"
        "code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    code, size = done.stdout.split()
    # The audit finds that the synthetic rows are not the catalogue's; it reads everything nonetheless.
    assert int(code) == 0 or "audit" in arguments[0], (arguments, code)
    return float(size)


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Peak memory of the commands that go over a whole output.")
    parser.add_argument(
        "--rows", type=int, default=33_000, help="galaxies of the small catalogue (default 33000)"
    )
    parser.add_argument("--times", type=int, default=4, help="how much larger the other is (default 4)")
    parser.add_argument(
        "--predict",
        action="store_true",
        help="predict instead, with members that have no model (one process)",
    )
    parser.add_argument("--runs", type=int, default=5, help="of prediction (default 5)")
    options = parser.parse_args(argv)
    if options.predict:
        print(workload.describe())
        print(f"{options.rows:,} galaxies, and {options.times} times as many")
        ratios = []
        for _ in range(options.runs):
            few, many = (
                peak(["benchmarks.overhead", "--once", "--galaxies", str(rows)])
                for rows in (options.rows, options.rows * options.times)
            )
            ratios.append(many / few)
            print(f"predict: {few:.0f} MiB, {many:.0f} MiB, ratio {ratios[-1]:.3f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.3f}, asked below 1.10")
        return
    from tests import checkpoints

    found: dict[str, list[float]] = {}
    sizes = [options.rows, options.rows * options.times]
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            checkpoint = checkpoints.tree(base / "m.ckpt")
            make(base / "out", checkpoint, rows)
            make(base / "more", checkpoint, rows, first_pass=PASSES, seed=1, shuffled=True)
            runs = [str(base / "out"), str(base / "more")]
            commands = {
                "finish": ["pipelines.finish", str(base / "out")],
                "audit": ["pipelines.audit", str(base / "out")],
                "export": ["pipelines.export", str(base / "out"), "--hdf5", str(base / "out.hdf5")],
                "aggregate": ["pipelines.aggregate", "--samples", *runs, "--output", str(base / "all")],
            }
            for name, command in commands.items():
                found.setdefault(name, []).append(peak(command))
    print(workload.describe())
    table = pd.DataFrame(found, index=[f"{rows:,} galaxies" for rows in sizes]).T
    table["ratio"] = table.iloc[:, 1] / table.iloc[:, 0]
    print("peak memory of a process, MiB")
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
