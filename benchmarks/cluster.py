"""How long a job of Slurm with Flink takes to its first stored snippet, and from its last one to its end.

    python -m benchmarks.cluster --flink DIR

as root, with Slurm installed as for the tests: their two nodes, which share this machine, and the demo's two
members on 200 simulated galaxies. Beside it the local runner with the same command. DIR is made by `python -m
runners.flink install DIR`.
"""

import argparse
import dataclasses
import datetime
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from examples.demo import GALAXIES, MEMBERS, SEED
from examples.simulate import write_survey
from tests.cluster import slurm

SNIPPET = 10
STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:,(\d{3}))?")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@dataclasses.dataclass(frozen=True)
class Times:
    """One run, in seconds.

    Attributes:
        first: from the command, or from sbatch, to the first stored snippet.
        end: from the last stored snippet to the end of the command, or of the job.
        steps: from sbatch to each step that is seen in a log.
    """

    first: float
    end: float
    steps: dict[str, float] = dataclasses.field(default_factory=dict)


def command(folder: Path, output: Path) -> list[str]:
    """The options of predict."""
    models = sorted(str(path) for path in MEMBERS.glob("demo_*.yaml"))
    words = ["--catalogue", str(folder / "catalogue.csv"), "--models", *models, "--output", str(output)]
    return [*words, "--passes", "5", "--snippet_size", str(SNIPPET)]


def stored(output: Path) -> list[float]:
    """When each snippet was stored, in seconds since 1970."""
    return sorted(path.stat().st_mtime for path in (output / "samples").glob("part-*.parquet"))


def direct(folder: Path, output: Path) -> Times:
    """The local runner."""
    begin = time.time()
    words = [sys.executable, "-m", "pipelines.predict", *command(folder, output)]
    subprocess.run(words, check=True, capture_output=True)
    end, parts = time.time(), stored(output)
    return Times(parts[0] - begin, end - parts[-1])


def flink(folder: Path, output: Path, installed: Path, nodes: int) -> Times:
    """A job with Flink."""
    words = [sys.executable, "-m", "runners.slurm", "submit", "--nodes", str(nodes), "--time", "10"]
    words += ["--engine", "flink", "--flink", str(installed)]
    words += ["--taskmanager_memory", "1200m", "--jobmanager_memory", "800m"]
    done = subprocess.run(
        [*words, "--", *command(folder, output)], check=True, capture_output=True, text=True
    )
    found = re.search(r"^job (\d+)", done.stdout, re.MULTILINE)
    assert found
    job = found[1]
    while (state := _field(job, "JobState")) not in ENDED:
        time.sleep(0.2)
    assert state == "COMPLETED", (output / "_slurm" / f"{job}.log").read_text()
    begin, parts = _moment(_field(job, "SubmitTime").replace("T", " ")), stored(output)
    logs = output / "_slurm" / job
    steps: dict[str, Callable[[], float]] = {
        "the job begins": lambda: _moment(_field(job, "StartTime").replace("T", " ")),
        "TaskManagers begin": lambda: _logged(logs.glob("taskmanager-*.log"), ""),
        "JobManager begins": lambda: _logged([logs / "jobmanager.log"], ""),
        "all have registered": lambda: _logged(
            [logs / "jobmanager.log"], "Registering TaskManager", last=True
        ),
        "Flink begins the graph": lambda: _logged([logs / "jobmanager.log"], "Starting execution of job"),
        "a Python worker begins": lambda: _logged(logs.glob("worker-*.log"), "worker"),
        "the graph is done": lambda: _logged([logs / "jobmanager.log"], "reached terminal state FINISHED"),
        "the tables are complete": (output / "manifest.json").stat().st_mtime.__float__,
    }
    at = {name: moment() - begin for name, moment in steps.items()}
    at |= {"the first snippet is stored": parts[0] - begin, "the last snippet is stored": parts[-1] - begin}
    end = _moment(_field(job, "EndTime").replace("T", " "))
    return Times(parts[0] - begin, end - parts[-1], {**at, "the job ends": end - begin})


def _field(job: str, name: str) -> str:
    words = ["scontrol", "--oneliner", "show", "job", job]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found = re.search(rf"\b{name}=(\S+)", text)
    assert found, text
    return found[1]


def _moment(text: str) -> float:
    found = STAMP.match(text)
    assert found, text
    return datetime.datetime.fromisoformat(found[1]).timestamp() + int(found[2] or 0) / 1000


def _logged(logs: object, words: str, *, last: bool = False) -> float:
    """When the first (or last) line with these words was logged; of several logs the earliest."""
    moments = []
    for log in logs:  # type: ignore[attr-defined]
        lines = [line for line in log.read_text().splitlines() if STAMP.match(line) and words in line]
        moments += [_moment(line) for line in (lines[-1:] if last else lines[:1])]
    return max(moments) if last else min(moments)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="How long a job of Slurm with Flink takes around its work.")
    parser.add_argument("--flink", type=Path, required=True, metavar="DIR")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"  # two nodes share the cores
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_survey(folder, GALAXIES, SEED)
        with slurm.running(folder / "slurm"):
            rounds = [
                (
                    direct(folder, folder / f"direct-{number}"),
                    flink(folder, folder / f"flink-{number}", options.flink, options.nodes),
                )
                for number in range(options.times)
            ]
    local, jobs = ([pair[place] for pair in rounds] for place in range(2))
    print("seconds, median (least to most)          local runner          job")
    for what, get in (
        ("to the first stored snippet", lambda each: each.first),
        ("from the last one to the end", lambda each: each.end),
    ):
        print(f"{what:38} {_show([get(each) for each in local])}  {_show([get(each) for each in jobs])}")
    extra = [job.first - here.first for here, job in rounds]
    print(f"{'the job takes longer to the first by':38} {'':21} {_show(extra)}")
    print("\nseconds after sbatch:")
    for step in sorted(jobs[0].steps, key=lambda each: jobs[0].steps[each]):
        print(f"{step:38} {'':21} {_show([job.steps[step] for job in jobs])}")


def _show(values: list[float]) -> str:
    return f"{statistics.median(values):6.1f} ({min(values):.1f} to {max(values):.1f})".rjust(21)


if __name__ == "__main__":
    main()
