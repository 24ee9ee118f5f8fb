"""The same work through what people use today: rates, peak memory, and the same vote fractions.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.peers

2 ZoobotTree members (convnext_nano) x 3 passes with dropout, minimal view of 224 px, images of 424 px,
tables. Every way runs in a process of its own, few galaxies and more of them in turn: the rate is that of
what is between, without start-up. Memory is the largest sum over all processes of what each has for itself (a
share of what they share). Without dropout all ways must give the same vote fractions.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import workload

OURS = {"this project": [], "this project, bf16 compiled": ["--precision", "bf16", "--compile"]}
SAME = 1e-6
"""Vote fractions of two ways in fp32 differ by less."""
PEERS = {"zoobot": "zoobot", "torch DataLoader": "loader", "Ray Data": "ray"}


def command(way: str, folder: Path, rows: int, passes: int, output: Path, dropout: bool) -> list[str]:
    """The command line of a way."""
    kind = "" if dropout else "still-"
    if way in PEERS:
        checkpoints = [str(folder / f"{kind}{name}.ckpt") for name in workload.MEMBERS]
        catalogue = str(folder / "catalogue.csv")
        given = [PEERS[way], catalogue, str(rows), str(passes), str(output), *checkpoints]
        return ["benchmarks.peer_programs", *given]
    words = ["--limit", str(rows), "--passes", str(passes), *OURS[way]]
    return ["pipelines.predict", *workload.predict_words(folder, output, *words, prefix=kind)]


def run(words: list[str]) -> tuple[float, float]:
    """Seconds, and peak memory in MiB of all its processes."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peak = [0.0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            peak[0] = max(peak[0], sum(map(_memory, _tree(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    error = process.communicate()[1]
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(words[:3])} failed:\n{error[-3000:]}")
    return time.perf_counter() - begin, peak[0]


def _tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found


def _memory(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def fractions(way: str, output: Path) -> pd.DataFrame:
    """The unmasked vote fractions of an output, by id."""
    advanced = output / ("tables_advanced.parquet" if way in PEERS else "advanced")
    table = pd.read_parquet(advanced).set_index("id_str").sort_index()
    return table[sorted(name for name in table.columns if name.endswith("_fraction"))]


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The same work through what people use today.")
    parser.add_argument("--few", type=int, default=32)
    parser.add_argument("--more", type=int, default=160)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=[*PEERS, *OURS], default=[*PEERS, *OURS])
    options = parser.parse_args(argv)
    from tests import checkpoints

    print(workload.describe(), flush=True)
    rates: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workload.write_catalogue(folder, options.more)
        workload.write_members(folder)
        for seed, member in enumerate(workload.MEMBERS):
            path = folder / f"still-{member}.ckpt"
            checkpoints.tree(
                path, seed=seed, architecture_name=workload.ARCHITECTURE, test_time_dropout=False
            )
            checkpoints.member(path.with_suffix(".yaml"), path, view=workload.VIEW)
        still = {}
        for way in options.ways:  # this also fills the caches of files and of compiled code
            output = folder / f"still {way}"
            run(command(way, folder, options.few, 1, output, False))
            still[way] = fractions(way, output)
            theirs = still[options.ways[0]]
            if any(
                list(getattr(still[way], axis)) != list(getattr(theirs, axis))
                for axis in ("index", "columns")
            ):
                raise SystemExit(
                    f"the table of {way} has other rows or columns than that of {options.ways[0]}"
                )
        for number in range(options.times):
            for way in options.ways:
                seconds = []
                for rows in (options.few, options.more):
                    output = folder / f"{way} {number} {rows}"
                    took, most = run(command(way, folder, rows, workload.PASSES, output, True))
                    seconds.append(took)
                    memory[way] = max(most, memory.get(way, 0))
                rates.setdefault(way, []).append((options.more - options.few) / (seconds[1] - seconds[0]))
            print(f"round {number + 1} of {options.times}", file=sys.stderr, flush=True)
    first, wrong = options.ways[0], False
    print(f"{'':30} galaxies/s  times {first}  peak memory, MiB  largest difference of a vote fraction")
    for way in options.ways:
        rate = statistics.median(rates[way])
        times = statistics.median(a / b for a, b in zip(rates[way], rates[first], strict=True))
        difference = np.abs(still[way].to_numpy() - still[first].to_numpy()).max()
        wrong = wrong or not (difference < SAME or "bf16" in way)
        print(f"{way:30} {rate:10.1f} {times:11.1f} {memory[way]:18.0f}  {difference:.1e}")
    if wrong:
        raise SystemExit(f"vote fractions in fp32 differ by more than {SAME}")


if __name__ == "__main__":
    main()
