"""Time and peak memory of planning a large catalogue: ids checked, rows written below the output.

    python -m benchmarks.planning --rows 10000000

The limit is to read the file and write its rows once more: the table says how long pyarrow alone takes for
that.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import workload

ROWS_AT_ONCE = 1_000_000


def write_catalogue(path: Path, rows: int) -> None:
    """A Parquet catalogue whose images do not exist."""
    schema = pa.schema([("id_str", pa.string()), ("file_loc", pa.string())])
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, rows, ROWS_AT_ONCE):
            numbers = range(start, min(rows, start + ROWS_AT_ONCE))
            ids = [f"J{number:09d}" for number in numbers]
            locations = [f"{number // 10_000:05d}/J{number:09d}.jpg" for number in numbers]
            file.write_table(pa.table([ids, locations], schema=schema), row_group_size=100_000)


def plan(folder: Path) -> tuple[float, float, float, float]:
    """Seconds of preparing and publishing a run; peak MiB of this process, the catalogue and mapped files."""
    from zoobot.pytorch.estimators import define_model  # noqa: F401 (what it takes is not the catalogue's)

    from pipelines import command_line, prepare

    before = memory("VmHWM")
    begin = time.perf_counter()
    words = ["--catalogue", str(folder / "catalogue.parquet"), "--models", str(folder / "a.yaml")]
    words += ["--output", str(folder / "out"), "--max_failure_fraction", "1"]
    prepared = prepare.prepare("predict", command_line.parse("predict", "", words))
    prepare.publish(prepared, overwrite=False)
    seconds = time.perf_counter() - begin
    most = memory("VmHWM")
    return seconds, most, most - before, memory("RssFile")


def memory(name: str) -> float:
    """One line of /proc/self/status in MiB (getrusage also counts the parent's memory before the start)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def bare(folder: Path) -> float:
    """Seconds of pyarrow to read the catalogue and write it compressed."""
    begin = time.perf_counter()
    with (
        pq.ParquetFile(folder / "catalogue.parquet") as file,
        pq.ParquetWriter(folder / "copy.parquet", file.schema_arrow, compression="zstd") as copy,
    ):
        for batch in file.iter_batches(100_000):
            copy.write_batch(batch)
    return time.perf_counter() - begin


def main(argv: list[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description="Time and peak memory of planning a large catalogue.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.folder:
        print(*plan(options.folder))
        return
    from tests import checkpoints

    print(workload.describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_catalogue(folder / "catalogue.parquet", options.rows)
        checkpoints.member(folder / "a.yaml", checkpoints.tree(folder / "a.ckpt"))
        found = []
        for _ in range(options.times):
            limit = bare(folder)
            words = [sys.executable, "-m", "benchmarks.planning", "--folder", name]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            seconds, most, own, mapped = map(float, done.stdout.split())
            found.append((seconds, limit, most, own, mapped))
            shutil.rmtree(folder / "out")
    print(
        f"{options.rows:,} rows; seconds, pyarrow alone, peak memory in MiB, of that not there once the "
        "libraries were imported, and mapped from the libraries' files (at the end)"
    )
    for row in found:
        print("{:8.1f} {:8.1f} {:8.0f} {:8.0f} {:8.0f}".format(*row))


if __name__ == "__main__":
    main()
