"""From JPEG files to what the encoder takes: rates on one core, and what each way does to the vote fractions.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.images

Real galaxies where they are at hand. Two members: convnext_nano with random weights and a view of 224 px, and
the demo's trained members with theirs of 96 px. Changes are those of all vote fractions against Pillow and
galaxy_datasets.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import workload

Decoder = Callable[[bytes], Image.Image]
DEMO = Path(__file__).parents[1] / "examples" / "members"


def pillow(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def draft(side: int) -> Decoder:
    """Pillow, decoding to as few pixels as are at least so many."""

    def decode(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.draft(None, (side, side))
        return image.convert("RGB")

    return decode


def simplejpeg(**settings: Any) -> Decoder:
    """libjpeg-turbo."""

    def decode(data: bytes) -> Image.Image:
        import simplejpeg

        return Image.fromarray(simplejpeg.decode_jpeg(data, **settings))

    return decode


def torchvision(data: bytes) -> Image.Image:
    from torchvision.io import ImageReadMode, decode_jpeg

    pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def decoders(output: int, zoom: float) -> dict[str, Decoder]:
    """The decoders for a view of so many pixels; `zoom` is what its affine transform enlarges."""
    return {
        "Pillow": pillow,
        "Pillow, --fast_images": draft(int(np.ceil(output * zoom))),
        "Pillow draft, half the size": draft(212),
        "simplejpeg": simplejpeg(),
        "simplejpeg, fast DCT": simplejpeg(fastdct=True, fastupsample=True),
        "torchvision": torchvision,
    }


def milliseconds(work: Callable[[Any], Any], items: list[Any], times: int) -> float:
    """Of this thread's processor time, an item; the median of some rounds."""
    found = []
    for _ in range(times):
        begin = time.thread_time()
        for item in items:
            work(item)
        found.append(1e3 * (time.thread_time() - begin) / len(items))
    return statistics.median(found)


def fractions(models: list[Any], pixels: list[np.ndarray]) -> np.ndarray:
    """Vote fractions of all models, shape (galaxy, answers of all models)."""
    x = torch.from_numpy(np.stack(pixels)).float() / 255
    features = [torch.cat([model.encoder(some) for some in x.split(8)]) for model in models]
    return np.concatenate([workload.fractions(*each) for each in zip(models, features, strict=True)], axis=1)


def table(title: str, models: list[Any], view: dict[str, Any], files: list[bytes], times: int) -> None:
    """Print the table of one kind of members."""
    from beam_zoo.images.fast_views import FastView
    from beam_zoo.images.views import View, view_settings

    settings = view_settings(view, False)
    exact_view, fast_view = View(settings), FastView(settings)

    def in_batches(image: Image.Image) -> np.ndarray:
        """On a CPU, one at a time: what a GPU does."""
        out = torch.empty((1, 1, *fast_view.shape), dtype=torch.uint8)
        draws = [[fast_view.draw(image.height, image.width)]]
        fast_view.batch([torch.from_numpy(fast_view.raw(image))], draws, out)
        return out[0, 0].numpy()

    print(f"\n{title}")
    print(f"{'':46} {'decode':>7} {'view':>6} {'all':>6}  ms; changes: median, 99%, largest")
    exact: np.ndarray | None = None
    for name, decode in decoders(view["output_size"], 1.2).items():
        try:
            images = [decode(data) for data in files]
        except ImportError as error:
            print(f"{name:46} not run: {error}")
            continue
        read = milliseconds(decode, files, times)
        for kind, make in (("exact view", exact_view.pixels), ("--fast_views", in_batches)):
            seen = milliseconds(make, images, times)
            with torch.inference_mode():
                found = fractions(models, [make(image) for image in images])
            exact = found if exact is None else exact
            moved = workload.change(found, exact)
            print(f"{name + ', ' + kind:46} {read:7.2f} {seen:6.2f} {read + seen:6.2f}  {moved}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="From JPEG files to what the encoder takes.")
    parser.add_argument("--galaxies", type=int, default=128)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args(argv)
    from beam_zoo.runtime.device import one_thread
    from tests import oracle

    print(workload.describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [p.read_bytes() for p in oracle.paths_of(workload.write_catalogue(folder, options.galaxies))]
        files = [data for data in files if data[:2] == b"\xff\xd8" and pillow(data).size == (424, 424)]
        workload.write_members(folder)
        random = workload.load_members(folder)
    demo = [oracle.load_tree(DEMO / f"demo_{letter}.ckpt") for letter in "ab"]
    small = []  # the same pixels, as surveys that save space store them
    for data in files:
        file = io.BytesIO()
        pillow(data).save(file, "JPEG", quality=80)
        small.append(file.getvalue())
    one_thread()
    for kind, some in (("as they are", files), ("saved again with quality 80", small)):
        size = f"{len(some)} images of 424 px, {statistics.mean(map(len, some)) / 1e3:.0f} kB, {kind}"
        table(f"convnext_nano, random weights, 224 px; {size}", random, workload.VIEW, some, options.times)
        view = {"base": "minimal", "output_size": 96}
        table(f"the demo's members, 96 px; {size}", demo, view, some, options.times)


if __name__ == "__main__":
    main()
