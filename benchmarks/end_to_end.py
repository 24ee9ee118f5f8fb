"""The whole command against the bare forward pass, on a CPU: how much of the time is not the encoder's.

    python -m benchmarks.end_to_end

2 members (convnext_nano) x 3 passes, minimal view of 224 px, 512 galaxies of 424 px; samples, tables and manifest. The bare
loop has the same models, without Beam, and pixels that are in memory already; it runs before and after each run of the
command, both in a process of their own. The clock of the command starts when its models are loaded (and compiled) and ends
with the manifest.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import workload

WAYS = {
    "fp32": ([], 0.90),
    "bf16": (["--precision", "bf16"], 0.85),
    "bf16 compiled": (["--precision", "bf16", "--compile"], 0.85),
    "fp32, fast": (["--fast_images", "--fast_views"], 0.95),
    "bf16, fast": (["--precision", "bf16", "--fast_images", "--fast_views"], 0.90),
    "bf16 compiled, fast": (["--precision", "bf16", "--compile", "--fast_images", "--fast_views"], 0.90),
}
"""Options of the command, and the share of the bare rate that was asked for."""
BATCH = 8
"""Images of one forward pass of the bare loop, as of the command's."""


def bare_loop(folder: Path, words: list[str], galaxies: int) -> Iterator[float]:
    """Galaxies a second of the models alone, again and again."""
    import torch

    from beam_zoo.device import keep_freed_memory
    from tests import oracle

    keep_freed_memory()  # as the command: without it the ratio would be of page faults
    models = workload.load_members(folder)
    view = oracle.view(**workload.VIEW)
    paths = oracle.paths_of(folder / "catalogue.csv")[:64]
    images = torch.stack([(255 * view(oracle.image(path))).round().to(torch.uint8) for path in paths])
    if "--compile" in words:
        for model in models:
            model.encoder = torch.compile(model.encoder, dynamic=False)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled="bf16" in words):
        for model in models:
            workload.forward(model, images[:BATCH])
        while True:
            begin = time.perf_counter()
            for start in range(0, galaxies, BATCH):
                some = images[torch.arange(start, start + BATCH) % len(images)]
                for model in models:
                    workload.forward(model, some)
            yield galaxies / (time.perf_counter() - begin)


@contextlib.contextmanager
def _loaded() -> Iterator[list[float]]:
    """When models were loaded."""
    from beam_zoo.inference import MemberHandler

    moments: list[float] = []
    load = MemberHandler.load_model

    def noted(handler: MemberHandler) -> Any:
        model = load(handler)
        moments.append(time.perf_counter())
        return model

    with mock.patch.object(MemberHandler, "load_model", noted):
        yield moments


def command_rate(folder: Path, words: list[str], galaxies: int) -> float:
    """Galaxies a second of the command, from the last model's loading to the manifest."""
    from pipelines import predict

    given = ["--passes", str(workload.PASSES), "--limit", str(galaxies), *words]
    output = folder / f"out-{time.time_ns()}"
    with _loaded() as moments:
        assert predict.main(workload.predict_words(folder, output, *given)) == 0
        return galaxies / (time.perf_counter() - moments[-1])


def pairs(folder: Path, way: str, galaxies: int, times: int) -> Iterator[tuple[float, float]]:
    """(bare rate, command's rate), measured side by side."""
    me = [sys.executable, "-m", "benchmarks.end_to_end", "--galaxies", str(galaxies), "--folder", str(folder)]
    with subprocess.Popen(
        [*me, "--bare", way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bare:
        assert bare.stdin is not None and bare.stdout is not None

        def ask() -> float:
            print("again", file=bare.stdin, flush=True)
            return float(bare.stdout.readline())

        ask()
        for number in range(times + 1):
            before = ask()
            done = subprocess.run([*me, "--command", way], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            if number:  # the first fills caches: of files, and of compiled code
                yield (before + ask()) / 2, float(done.stdout.splitlines()[-1])
        bare.stdin.close()


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The whole command against the bare forward pass.")
    parser.add_argument("--galaxies", type=int, default=512)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    for name in ("bare", "command", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.bare:
        rates = bare_loop(Path(options.folder), WAYS[options.bare][0], options.galaxies // 4)
        for _ in sys.stdin:
            print(next(rates), flush=True)
        return
    if options.command:
        print(command_rate(Path(options.folder), WAYS[options.command][0], options.galaxies))
        return
    print(workload.describe())
    print(f"{options.galaxies} galaxies, medians of {options.times}; galaxies/s")
    print(f"{'':22} {'bare':>6} {'command':>8} {'ratio':>6} {'(least, most)':>14} {'asked':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workload.write_catalogue(folder, options.galaxies)
        workload.write_members(folder)
        for way in options.ways:
            found = list(pairs(folder, way, options.galaxies, options.times))
            ratios = sorted(command / bare for bare, command in found)
            middle = len(found) // 2
            bare, command = (sorted(values)[middle] for values in zip(*found, strict=True))
            spread = f"{ratios[0]:.2f}, {ratios[-1]:.2f}"
            print(
                f"{way:22} {bare:6.1f} {command:8.1f} {ratios[middle]:6.2f} {spread:>14} {WAYS[way][1]:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
