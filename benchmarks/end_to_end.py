"""The whole command against the bare forward pass, on a CPU: how much of the time is not the encoder's.

    python -m benchmarks.end_to_end

2 members (convnext_nano) x 3 passes, minimal view of 224 px, 512 galaxies of 424 px; samples, tables and
manifest. The bare loop has the same models, without Beam, and pixels that are in memory already; it runs
before and after each run of the command, both in a process of their own. The clock of the command starts when
its models are loaded (and compiled) and its decoders are there, and ends with the manifest. A third process
makes the images and views alone: the limit is what is left of the bare rate when these take all cores in
between, and all else takes nothing.
"""

import argparse
import contextlib
import functools
import multiprocessing.forkserver
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import workload

WAYS = {
    "fp32": ([], 0.90),
    "fp32 compiled": (["--compile"], 0.85),
    "bf16": (["--precision", "bf16"], 0.85),
    "bf16 compiled": (["--precision", "bf16", "--compile"], 0.85),
    "fp32, fast": (["--fast_images", "--fast_views"], 0.95),
    "fp32 compiled, fast": (["--compile", "--fast_images", "--fast_views"], 0.90),
    "bf16, fast": (["--precision", "bf16", "--fast_images", "--fast_views"], 0.90),
    "bf16 compiled, fast": (["--precision", "bf16", "--compile", "--fast_images", "--fast_views"], 0.90),
}
"""Options of the command, and the share of the bare rate that was asked for."""


def bare_loop(folder: Path, words: list[str], galaxies: int) -> None:
    """Answer with the galaxies a second of the models alone, again and again."""
    import torch

    from beam_zoo.inference.half_weights import with_half_weights
    from beam_zoo.inference.handler import IMAGES_AT_ONCE
    from beam_zoo.runtime.tuning import keep_freed_memory
    from tests import oracle

    at_once = IMAGES_AT_ONCE["cpu"]

    keep_freed_memory()  # as the command: without it the ratio would be of page faults
    models = workload.load_members(folder)
    view = oracle.view(**workload.VIEW)
    paths = oracle.paths_of(folder / "catalogue.csv")[:64]
    images = torch.stack([(255 * view(oracle.image(path))).round().to(torch.uint8) for path in paths])
    for model in models:  # the best that is known of the forward pass: as the command
        if "bf16" in words:
            model.encoder = with_half_weights(model.encoder, torch.bfloat16, images[:1].float() / 255)
        if "--compile" in words:
            model.encoder = torch.compile(model.encoder, dynamic=False)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled="bf16" in words):
        for model in models:
            workload.forward(model, images[:at_once])

        def measure() -> dict[str, float]:
            begin = time.perf_counter()
            for start in range(0, galaxies, at_once):
                some = images[torch.arange(start, start + at_once) % len(images)]
                for model in models:
                    workload.forward(model, some)
            return {"rate": galaxies / (time.perf_counter() - begin)}

        workload.answer(measure)


def image_rate(folder: Path, words: list[str], galaxies: int) -> dict[str, float]:
    """Galaxies a second of images and views alone, as the command makes them, on all cores."""
    from beam_zoo.images.batch_views import ViewTask, needed_side
    from beam_zoo.images.decoders import Decoding, Threads, Wanted
    from beam_zoo.images.views import view_settings
    from beam_zoo.inference.image_loader import TOGETHER
    from beam_zoo.runtime.tuning import keep_freed_memory
    from tests import oracle

    keep_freed_memory()
    task = ViewTask("view", view_settings(dict(workload.VIEW), False), None, 1)
    side = needed_side([task]) if "--fast_images" in words else None
    decoding = Decoding([task], late=False, least_side=side)
    threads = Threads(decoding, len(os.sched_getaffinity(0)), "cpu")
    paths = oracle.paths_of(folder / "catalogue.csv")[:galaxies]
    wanted = [functools.partial(Wanted, 0, str(path), [[None]]) for path in paths]
    begin = time.perf_counter()
    for start in range(0, galaxies, TOGETHER * 32):
        threads.start(wanted[start : start + TOGETHER * 32])()
    rate = galaxies / (time.perf_counter() - begin)
    threads.close()
    return {"rate": rate}


def processor_time() -> float:
    """Processor seconds of this process, and of the processes that decoded for it and have ended."""
    server: Any = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid is None:
        return time.process_time()
    fields = Path(f"/proc/{server._forkserver_pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _loaded() -> Iterator[list[tuple[float, float]]]:
    """When models were loaded, and decoders began: by the clock, and in processor time of this process."""
    from beam_zoo.inference.handler import MemberHandler
    from beam_zoo.inference.load import LoadImages

    moments: list[tuple[float, float]] = []

    def noted(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def do(whose: Any) -> Any:
            done = work(whose)
            moments.append((time.perf_counter(), processor_time()))
            return done

        return do

    with (
        mock.patch.object(MemberHandler, "load_model", noted(MemberHandler.load_model)),
        mock.patch.object(LoadImages, "setup", noted(LoadImages.setup)),
    ):
        yield moments


def command_rate(folder: Path, words: list[str], galaxies: int) -> dict[str, float]:
    """Galaxies a second, and processor seconds a galaxy, of the command without its start-up."""
    from pipelines import predict

    given = ["--passes", str(workload.PASSES), "--limit", str(galaxies), *words]
    output = folder / f"out-{time.time_ns()}"
    with _loaded() as moments:
        assert predict.main(workload.predict_words(folder, output, *given)) == 0
        clock, processor = moments[-1]
        return {
            "rate": galaxies / (time.perf_counter() - clock),
            "cpu": (processor_time() - processor) / galaxies,
        }


def measured(folder: Path, way: str, galaxies: int, times: int) -> Iterator[tuple[float, float, float]]:
    """(bare rate, images' rate, command's rate), side by side."""
    words = ["--galaxies", str(galaxies), "--folder", str(folder)]
    me = "benchmarks.end_to_end"
    with (
        workload.asked(me, *words, "--bare", way) as bare,
        workload.asked(me, *words, "--images", way) as images,
    ):
        bare()
        for number in range(times + 1):
            before = bare()["rate"]
            # Another process each time: who runs the command once has its memory as it is then.
            with workload.asked(me, *words, "--command", way) as command:
                rate = command()["rate"]
            after, alone = bare()["rate"], images()["rate"]
            if number:  # the first fills caches: of files, and of compiled code
                yield (before + after) / 2, alone, rate


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The whole command against the bare forward pass.")
    parser.add_argument("--galaxies", type=int, default=512)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    for name in ("bare", "images", "command", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.bare:
        bare_loop(Path(options.folder), WAYS[options.bare][0], options.galaxies // 4)
        return
    if options.images:
        words = WAYS[options.images][0]
        workload.answer(lambda: image_rate(Path(options.folder), words, options.galaxies))
        return
    if options.command:
        words = WAYS[options.command][0]
        workload.answer(lambda: command_rate(Path(options.folder), words, options.galaxies))
        return
    print(workload.describe())
    print(f"{options.galaxies} galaxies, medians of {options.times}; galaxies/s")
    head = f"{'':22} {'bare':>6} {'images':>7} {'command':>8} {'ratio':>6} {'(least, most)':>14}"
    print(f"{head} {'limit':>6} {'asked':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workload.write_catalogue(folder, options.galaxies)
        workload.write_members(folder)
        for way in options.ways:
            found = list(measured(folder, way, options.galaxies, options.times))
            ratios = sorted(command / bare for bare, _, command in found)
            # The bare rate if only images took time besides, one after the other with the forward passes.
            limit = statistics.median(images / (bare + images) for bare, images, _ in found)
            bare, images, command = map(statistics.median, zip(*found, strict=True))
            rates = f"{bare:6.1f} {images:7.1f} {command:8.1f} {statistics.median(ratios):6.2f}"
            spread = f"{ratios[0]:.2f}, {ratios[-1]:.2f}"
            print(f"{way:22} {rates} {spread:>14} {limit:6.2f} {WAYS[way][1]:6.2f}", flush=True)


if __name__ == "__main__":
    main()
