"""Images a second that threads of one process, and processes, decode on more and more cores, for a GPU.

    python -m benchmarks.decoders

JPEGs of 424 px that were read before; exact views of 224 px are made, or raw pixels kept for `--fast_views`;
batches of 256, 5 under way, as beside a GPU. The limit is the rate of one thread times the cores.
"""

import argparse
import collections
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import workload

BATCH, AHEAD = 256, 5


def rate(kind: str, fast: bool, cores: int, paths: list[str], images: int, times: int) -> float:
    """Images a second, median.

    Args:
        kind: `threads` or `processes`.
        fast: whether raw pixels are kept.
        cores: how many workers.
        paths: of images.
        images: how many to decode each time.
        times: how often.
    """
    from beam_zoo.images.batch_views import ViewTask
    from beam_zoo.images.decoders import Decoders, Decoding, Threads, Wanted
    from beam_zoo.images.decoding_processes import Processes
    from beam_zoo.images.views import view_settings

    task = ViewTask("minimal", view_settings(workload.VIEW, False), None, 1)
    decoding = Decoding([task], fast, None)
    workers: Decoders
    if kind == "threads":
        workers = Threads(decoding, cores, "cpu")
    else:
        workers = Processes(BATCH, AHEAD, decoding, cores, "cpu")
    batch = [Wanted(number, paths[number % len(paths)], [[None]]) for number in range(BATCH)]
    wanted = [lambda one=one: one for one in batch]

    def some() -> float:
        begin = time.perf_counter()
        waiting = collections.deque(workers.start(wanted) for _ in range(AHEAD))
        for number in range(images // BATCH):
            decoded = waiting.popleft()()
            assert all(isinstance(left, list) for left in decoded.left)
            decoded.done()
            if number + AHEAD < images // BATCH:
                waiting.append(workers.start(wanted))
        return images / (time.perf_counter() - begin)

    try:
        some()
        return statistics.median(some() for _ in range(times))
    finally:
        workers.close()


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Images a second that are decoded on more and more cores.")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--times", type=int, default=5)
    cores = [count for count in (1, 2, 4, 8, 16, 32) if count <= len(os.sched_getaffinity(0))]
    parser.add_argument("--cores", type=int, nargs="+", default=cores)
    options = parser.parse_args(argv)
    from tests import oracle

    images = max(AHEAD, options.images // BATCH) * BATCH
    print(workload.describe())
    print(f"{'':24}" + "".join(f"{count:>10}" for count in options.cores) + "  cores")
    with tempfile.TemporaryDirectory() as name:
        paths = [str(path) for path in oracle.paths_of(workload.write_catalogue(Path(name), 128))]
        for fast in (True, False):
            for kind in ("threads", "processes"):
                found = [rate(kind, fast, count, paths, images, options.times) for count in options.cores]
                what = f"{kind}, {'raw pixels' if fast else 'exact views'}"
                print(f"{what:24}" + "".join(f"{value:10.0f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
