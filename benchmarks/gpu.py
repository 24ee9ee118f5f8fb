"""The whole command against the bare forward pass, on a GPU, and the CPU cores that it takes to feed it.

    python -m benchmarks.gpu [--architecture convnext_base]

As benchmarks.end_to_end, with batches of 256, on JPEGs that were read once before. The bare loop has its
pixels on the card; bf16, compiled. `others` is the rate of the same command without the encoders: the limit
is its share of the bare rate, where the card does both at once for nothing. Cores are the processor time of
the command, a galaxy, times the bare rate.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import workload
from benchmarks.end_to_end import command_rate

BATCH, ASKED = 256, 0.85
SNIPPET = 16 * BATCH
"""Galaxies of a part: with --compile a batch that is not full costs as much as one that is."""
WAYS = {
    "bf16": ["--precision", "bf16"],
    "bf16, fast": ["--precision", "bf16", "--fast_images", "--fast_views", "--gpu_decoder"],
    "bf16 compiled": ["--precision", "bf16", "--compile"],
    "bf16 compiled, fast": [
        "--precision",
        "bf16",
        "--compile",
        "--fast_images",
        "--fast_views",
        "--gpu_decoder",
    ],
}


def bare_loop(folder: Path, galaxies: int, *, device: str = "cuda", batch: int = BATCH) -> None:
    """Answer with the galaxies a second of the members alone, compiled, in bfloat16.

    Args:
        folder: of the members.
        galaxies: how many to predict.
        device: where the models are.
        batch: images of one forward pass.
    """
    import torch

    models = workload.load_members(folder, device)
    for model in models:
        model.encoder = torch.compile(model.encoder, dynamic=False)
    size = workload.VIEW["output_size"]
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)

    def some(count: int) -> dict[str, float]:
        begin = time.perf_counter()
        for _ in range(0, count, batch):
            found = [workload.forward(model, pixels) for model in models]
        found[-1].cpu()  # waits for all that was asked for
        return {"rate": -(-count // batch) * batch / (time.perf_counter() - begin)}

    with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
        some(3 * batch)
        workload.answer(lambda: some(galaxies))


def others_rate(folder: Path, words: list[str], galaxies: int) -> dict[str, float]:
    """As `command_rate`, with features that are all zero once the models are loaded: nothing is encoded."""
    import torch

    from beam_zoo.inference.handler import MemberModel

    encode = MemberModel._encode
    known: dict[int, torch.Tensor] = {}

    def blank(model: Any, images: torch.Tensor) -> torch.Tensor:
        if id(model) not in known:
            known[id(model)] = torch.zeros_like(encode(model, images[:1]))
        return known[id(model)].expand(len(images), -1)

    with mock.patch.object(MemberModel, "_encode", blank):
        return command_rate(folder, words, galaxies)


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The whole command against the bare forward pass, on a GPU.")
    parser.add_argument("--galaxies", type=int, default=65_536)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--architecture", default=workload.ARCHITECTURE, help="timm's name of the encoder")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    for name in ("way", "others", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if way := options.way or options.others:
        words = [*WAYS[way], "--device", "cuda", "--batch_size", str(BATCH), "--snippet_size", str(SNIPPET)]
        rate = command_rate if options.way else others_rate
        workload.answer(lambda: rate(Path(options.folder), words, options.galaxies))
        return
    if options.folder:
        bare_loop(Path(options.folder), options.galaxies)
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("this machine has no GPU: nothing was measured")
    print(workload.describe())
    print(f"2 {options.architecture}, {options.galaxies} galaxies, medians of {options.times}; galaxies/s")
    head = f"{'':22} {'bare':>8} {'others':>8} {'command':>8} {'ratio':>6}"
    print(f"{head} {'limit':>6} {'asked':>6} {'cores':>6}")
    with tempfile.TemporaryDirectory() as name:
        workload.write_catalogue(Path(name), options.galaxies)
        workload.write_members(Path(name), options.architecture)
        words = ["benchmarks.gpu", "--folder", name, "--galaxies", str(options.galaxies)]
        with workload.asked(*words) as bare:
            bare()
            for way in options.ways:
                found = []
                with workload.asked(*words, "--way", way) as command:
                    command()  # what is imported and compiled is not the galaxies' cost
                    for _ in range(options.times):
                        found.append((bare()["rate"], command()))
                        print(f"  {found[-1]}", file=sys.stderr, flush=True)
                with workload.asked(*words, "--others", way) as others:
                    others()
                    rest = statistics.median(others()["rate"] for _ in range(options.times))
                alone = statistics.median(rate for rate, _ in found)
                rate = statistics.median(ours["rate"] for _, ours in found)
                ratio = statistics.median(ours["rate"] / rate for rate, ours in found)
                cores = alone * statistics.median(ours["cpu"] for _, ours in found)
                figures = f"{alone:8.0f} {rest:8.0f} {rate:8.0f} {ratio:6.2f} {min(1, rest / alone):6.2f}"
                print(f"{way:22} {figures} {ASKED:6.2f} {cores:6.1f}", flush=True)


if __name__ == "__main__":
    main()
