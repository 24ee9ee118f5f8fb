"""What the pipeline itself costs: everything but images, models and the statistics' arithmetic.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.overhead --galaxies 200000

Galaxies without images go through members without models (3 members x 5 passes x 34 answers), are stored,
read back, combined by CombinePerKey, turned into statistics and written, on the local runner. The result is
the CPU time of this process per galaxy, without that of a run of few galaxies (set-up) and of the statistics'
arithmetic, which is timed where it is called. `--profile` shows the functions.
"""

import argparse
import cProfile
import dataclasses
import os
import pstats
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock

import numpy as np

from beam_zoo.images.decoders import Decoded
from beam_zoo.inference.handler import MemberHandler
from beam_zoo.inference.load import LoadImages
from beam_zoo.plan.run import Run
from beam_zoo.runtime.tuning import keep_freed_memory
from beam_zoo.samples.records import Batch
from beam_zoo.tables.statistics import DecisionTree, TreeStatistics
from benchmarks import workload
from benchmarks.planned import write_plan

MEMBERS, PASSES, BATCH = ("a", "b", "c"), 5, 256
FEW = 2000
ONE_THREAD = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"
LIMIT = 37
"""Microseconds a galaxy that were asked for."""


class NoImages(LoadImages):
    """Batches without pixels."""

    def setup(self) -> None:
        super().setup()
        self._images._decoders.close()
        self._images._decoders = _NothingToDecode()  # type: ignore[assignment]


class _NothingToDecode:
    views: ClassVar[list[Any]] = []

    def start(self, wanted: Sequence[Any]) -> Callable[[], Decoded]:
        return lambda: Decoded([], [[] for _ in wanted], lambda: None)

    def close(self) -> None:
        pass


class NoModel(MemberHandler):
    """The same samples for every batch."""

    def load_model(self) -> Any:
        shape = (BATCH, PASSES, len(self._member.outputs))
        return np.random.default_rng(0).uniform(1, 101, shape).astype(np.float32)

    def run_inference(
        self, batch: Batch | Sequence[Batch], model: Any, inference_args: dict[str, Any] | None = None
    ) -> list[Batch]:
        assert isinstance(batch, Batch)
        return [dataclasses.replace(batch, outputs={**batch.outputs, self._member.name: model[: len(batch)]})]


def plan_of(work: Path, galaxies: int) -> Run:
    """A planned run of as many galaxies."""
    from tests import checkpoints

    output = work / f"out-{galaxies}-{time.time_ns()}"
    made = write_plan(output, checkpoints.tree(work / "m.ckpt"), galaxies, MEMBERS, PASSES)
    return Run(made, str(output), "/", BATCH, "cpu")


class Seconds(NamedTuple):
    """CPU time of the steps of a run."""

    samples: float
    tables: float
    arithmetic: float


def seconds(run: Run) -> Seconds:
    """CPU time of the samples, of the tables without the statistics' arithmetic, and of that."""
    from pipelines.build import build_tables
    from pipelines.execution import predict_here

    spent = 0.0

    def statistics(tree: DecisionTree, samples: np.ndarray) -> TreeStatistics:
        nonlocal spent
        begin = time.thread_time()
        made = arithmetic(tree, samples)
        spent += time.thread_time() - begin
        return made

    arithmetic = DecisionTree.statistics
    with (
        mock.patch("pipelines.samples.LoadImages", NoImages),
        mock.patch("pipelines.samples.MemberHandler", NoModel),
        mock.patch.object(DecisionTree, "statistics", statistics),
    ):
        begin = time.process_time()
        predict_here(run, [run.plan.snippet(n) for n in range(run.plan.snippets)], [])
        stored = time.process_time()
        build_tables(run, [])
        found = Seconds(stored - begin, time.process_time() - stored - spent, spent)
    shutil.rmtree(run.output)  # else the system writes it to disk during the runs that follow
    return found


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What the pipeline itself costs.")
    parser.add_argument("--galaxies", type=int, default=200_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument(
        "--profile", type=int, default=0, metavar="N", help="show the N costliest functions of one run"
    )
    parser.add_argument("--once", action="store_true", help="run once, and measure nothing")
    options = parser.parse_args(argv)
    if not options.once and any(os.environ.get(name) != "1" for name in ONE_THREAD):
        parser.error(
            f"threads that wait count as CPU time: say {' '.join(f'{name}=1' for name in ONE_THREAD)}"
        )
    keep_freed_memory()  # as the commands do that build tables on a CPU
    if options.once:
        with tempfile.TemporaryDirectory() as folder:
            seconds(plan_of(Path(folder), options.galaxies))
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        seconds(plan_of(work, FEW))
        for _ in range(options.times):
            small = seconds(plan_of(work, FEW))
            large = seconds(plan_of(work, options.galaxies))
            each = [1e6 * (b - a) / (options.galaxies - FEW) for a, b in zip(small, large, strict=True)]
            found.append((*each, each[0] + each[1]))
        if options.profile:
            profile = cProfile.Profile()
            run = plan_of(work, options.galaxies)
            profile.runcall(seconds, run)
            pstats.Stats(profile).sort_stats("tottime").print_stats(options.profile)
    print(f"{workload.describe()}; {options.galaxies:,} galaxies")
    print("us a galaxy: samples, tables without arithmetic, arithmetic, overhead (the first two)")
    for row in found:
        print("  ".join(f"{value:6.1f}" for value in row))
    print(f"median overhead {sorted(row[3] for row in found)[len(found) // 2]:.1f} us; asked {LIMIT:.0f}")


if __name__ == "__main__":
    main()
