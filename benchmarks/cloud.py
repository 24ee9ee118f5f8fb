"""What a catalogue costs on Dataflow: rates and bytes that are measured here, and prices that you put in.

`python -m benchmarks.cloud` predicts galaxies with 2 members (convnext_nano, random weights) x 3 passes on
the local runner, once few and once more of them, so that start-up cancels out; measures what a galaxy sends
through the two shuffles; and prints the price formula with the prices given. `--rate R` puts in the rate of
another worker instead.

    python -m benchmarks.cloud --galaxies 8.7e6 --worker_price 0.9 --shuffle_price 0.011 --rate 1000
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from benchmarks import workload

FEW, MORE = 32, 128


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Bytes that a galaxy sends through each shuffle, encoded as Beam encodes them.

    Attributes:
        samples: (id, samples) to CombinePerKey.
        tables: its numbers to the table part that writes it.
    """

    samples: float
    tables: float


def rate(work: Path) -> float:
    """Galaxies a second, images to tables, of one worker on this machine; the median of 5 pairs of runs."""
    from pipelines import predict

    workload.write_catalogue(work, MORE)
    workload.write_members(work)

    def seconds(count: int, output: Path) -> float:
        given = ["--passes", str(workload.PASSES), "--limit", str(count)]
        begin = time.perf_counter()
        assert predict.main(workload.predict_words(work, output, *given)) == 0
        return time.perf_counter() - begin

    seconds(8, work / "warm")
    pairs = []
    for number in range(5):
        few, more = (seconds(count, work / f"{number}-{count}") for count in (FEW, MORE))
        pairs.append((MORE - FEW) / (more - few))
    return sorted(pairs)[2]


def shuffled(output: Path) -> Shuffled:
    """Bytes of the elements that the two shuffles of an output's tables are given."""
    from apache_beam.coders import BytesCoder, FastPrimitivesCoder, TupleCoder

    from beam_zoo.plan import plan_file
    from beam_zoo.plan.run import Run
    from beam_zoo.samples import parts
    from beam_zoo.samples.ensemble import Ensemble
    from beam_zoo.samples.read import ReadStoredPart
    from beam_zoo.tables.steps import ComputeStatistics

    made = plan_file.read(str(output))
    assert made is not None
    run = Run(made, str(output), "", 1, "cpu")
    refs = [ref for found in parts.stored_parts(made, str(output)).values() for ref in found]
    records = [each for ref in refs for each in ReadStoredPart(run).process(ref) if isinstance(each, tuple)]
    compute = ComputeStatistics(made, Ensemble.of(made))
    compute.setup()
    compute.start_bundle()
    elements = [element for record in records for element in compute.process(record)]
    elements += [windowed.value for windowed in compute.finish_bundle()]
    pairs, anything = TupleCoder((BytesCoder(), BytesCoder())), FastPrimitivesCoder()
    return Shuffled(
        sum(len(pairs.encode(record)) for record in records) / len(records),
        sum(len(anything.encode(element)) for element in elements) / len(records),
    )


def main(argv: list[str] | None = None) -> None:
    """Print what was measured, and the price."""
    parser = argparse.ArgumentParser(description="What a catalogue costs on Dataflow.")
    parser.add_argument("--galaxies", type=float, default=1e6, help="of the catalogue (default 1e6)")
    parser.add_argument(
        "--worker_price", type=float, default=1.0, help="of a worker and hour, its GPU included (default 1)"
    )
    parser.add_argument(
        "--shuffle_price", type=float, default=0.0, help="of a GB through a shuffle (default 0)"
    )
    parser.add_argument("--workers", type=int, default=10, help="at the same time (default 10)")
    parser.add_argument("--rate", type=float, help="galaxies a second of a worker (default: measured here)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found = rate(Path(folder))
        sizes = shuffled(Path(folder) / f"0-{MORE}")
    print(workload.describe())
    print(
        f"{len(workload.MEMBERS)} x {workload.ARCHITECTURE}, {workload.PASSES} passes, fp32, cpu: "
        f"{found:.1f} galaxies/s = {3600 * found:,.0f} an hour"
    )
    print(f"shuffle, bytes a galaxy: {sizes.samples:.0f} samples + {sizes.tables:.0f} tables")
    speed = options.rate or found
    hours = options.galaxies / speed / 3600
    terabytes = options.galaxies * (sizes.samples + sizes.tables) / 1e12
    price = hours * options.worker_price + 1e3 * terabytes * options.shuffle_price
    each = hours / options.workers
    print(
        f"{options.galaxies:,.0f} galaxies at {speed:,.1f} galaxies/s a worker: {hours:,.1f} worker hours "
        f"({each:,.1f} h on {options.workers}), {terabytes:.3f} TB shuffled, price {price:,.2f}"
    )


if __name__ == "__main__":
    main()
