"""Tables of a large output, with one process and with several: time and memory.

`python -m benchmarks.tables` stores random samples (2 members x 5 passes x 34 answers, no images), then runs
`finish` and `audit` with one process and with two, one after the other. Time is that of the whole command,
start-up included. Memory is the largest sum of the proportional set sizes of the command's processes, read
every tenth of a second.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import workload
from benchmarks.memory import make

ASKED = 1.7


def measure(command: str, output: Path, processes: int) -> tuple[float, float]:
    """Seconds and MiB of a command that may use so many processes."""
    words = [sys.executable, "-m", f"pipelines.{command}", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(processes)}
    begin = time.monotonic()
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(0.1)
    # The audit finds that the synthetic rows are not the catalogue's; it reads everything nonetheless.
    assert process.returncode == 0 or command == "audit", (words, process.returncode)
    return time.monotonic() - begin, peak


def _memory(pid: int) -> float:
    """MiB of a process and of those that it started."""
    total = 0.0
    for each in [pid, *_children(pid)]:
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split()]


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Tables of a large output, with one process and with two.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--commands", nargs="+", default=["finish", "audit"])
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        from tests import checkpoints

        output, checkpoint = Path(folder, "out"), checkpoints.tree(Path(folder, "m.ckpt"))
        make(output, checkpoint, options.rows)
        print(f"{workload.describe()}; {options.rows:,} galaxies")
        print(f"one process and two: s, MiB; times as fast (asked {ASKED}); times the memory (at most 2)")
        for command in options.commands:
            ratios = []
            for _ in range(options.times):
                found = []
                for processes in (1, 2):
                    if command == "finish":
                        shutil.rmtree(output / "_tables", ignore_errors=True)
                    found.append(measure(command, output, processes))
                (one, small), (two, large) = found
                ratios.append((one / two, large / small))
                print(
                    f"{command:8} {one:6.1f} {small:6.0f}  {two:6.1f} {large:6.0f}  "
                    f"{one / two:5.2f}  {large / small:5.2f}",
                    flush=True,
                )
            medians = [f"{statistics.median(each):.2f}" for each in zip(*ratios, strict=True)]
            print(f"{command:8} medians: {' '.join(medians)}")


if __name__ == "__main__":
    main()
