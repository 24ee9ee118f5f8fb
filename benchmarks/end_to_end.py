"""The whole command against the bare forward pass, on a CPU: how much of the time is not the encoder's.

    python -m benchmarks.end_to_end

2 members (convnext_nano) x 3 passes, minimal view of 224 px, 512 galaxies of 424 px; samples, tables and manifest. For every
way of computing a process of its own predicts, in turn with the bare loop: the same models, without Beam, on pixels that are
in memory already. The clock of the command starts when its models are loaded (and compiled) and ends with the manifest.
"""

import argparse
import contextlib
import json
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


def bare_loop(folder: Path, words: list[str]) -> Any:
    """A function that predicts a number of galaxies and returns the galaxies a second."""
    import torch

    from tests import oracle

    models = workload.load_members(folder)
    view = oracle.view(**workload.VIEW)
    paths = oracle.paths_of(folder / "catalogue.csv")[:64]
    images = torch.stack([(255 * view(oracle.image(path))).round().to(torch.uint8) for path in paths])
    half = "bf16" in words
    if "--compile" in words:
        for model in models:
            model.encoder = torch.compile(model.encoder, dynamic=False)

    def rate(galaxies: int) -> float:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            for model in models:
                workload.forward(model, images[:BATCH])
            begin = time.perf_counter()
            for start in range(0, galaxies, BATCH):
                some = images[torch.arange(start, start + BATCH) % len(images)]
                for model in models:
                    workload.forward(model, some)
            return galaxies / (time.perf_counter() - begin)

    return rate


@contextlib.contextmanager
def _loaded() -> Iterator[list[float]]:
    """When the last model was loaded."""
    from beam_zoo.inference import MemberHandler

    moments: list[float] = []
    load = MemberHandler.load_model

    def noted(handler: MemberHandler) -> Any:
        model = load(handler)
        moments.append(time.perf_counter())
        return model

    with mock.patch.object(MemberHandler, "load_model", noted):
        yield moments


def command_rate(folder: Path, words: list[str], galaxies: int, output: Path) -> float:
    """Galaxies a second of the command, from the last model's loading to the manifest."""
    from pipelines import predict

    models = [str(folder / f"{name}.yaml") for name in workload.MEMBERS]
    given = ["--catalogue", str(folder / "catalogue.csv"), "--models", *models, "--output", str(output)]
    given += ["--passes", str(workload.PASSES), "--limit", str(galaxies), *words]
    with _loaded() as moments:
        assert predict.main(given) == 0
        return galaxies / (time.perf_counter() - moments[-1])


def measure(folder: Path, way: str, galaxies: int, times: int) -> None:
    """In a process of its own: print pairs of (bare rate, command's rate) as JSON."""
    words, _ = WAYS[way]
    bare = bare_loop(folder, words)
    key = "".join(c for c in way if c.isalnum())
    command_rate(folder, words, 16, folder / f"{key}-warm")
    pairs = []
    for number in range(times):
        before = bare(galaxies // 4)
        found = command_rate(folder, words, galaxies, folder / f"{key}-{number}")
        pairs.append(((before + bare(galaxies // 4)) / 2, found))
    print(json.dumps(pairs))


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The whole command against the bare forward pass.")
    parser.add_argument("--galaxies", type=int, default=512)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        measure(options.folder, options.measure, options.galaxies, options.times)
        return
    print(workload.describe())
    print(f"{options.galaxies} galaxies, medians of {options.times}; galaxies/s")
    print(f"{'':22} {'bare':>6} {'command':>8} {'ratio':>6} {'(least, most)':>14} {'asked':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workload.write_catalogue(folder, options.galaxies)
        workload.write_members(folder)
        for way in options.ways:
            words = [sys.executable, "-m", "benchmarks.end_to_end", "--measure", way, "--folder", name]
            words += ["--galaxies", str(options.galaxies), "--times", str(options.times)]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            pairs = json.loads(done.stdout.splitlines()[-1])
            ratios = sorted(command / bare for bare, command in pairs)
            middle = len(pairs) // 2
            bare, command = (sorted(values)[middle] for values in zip(*pairs, strict=True))
            spread = f"{ratios[0]:.2f}, {ratios[-1]:.2f}"
            print(
                f"{way:22} {bare:6.1f} {command:8.1f} {ratios[middle]:6.2f} {spread:>14} {WAYS[way][1]:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
