"""The step that loads the images of a snippet in batches."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo.images.decode import image_path
from beam_zoo.images.failure import Failure
from beam_zoo.inference.image_loader import Image, ImageLoader
from beam_zoo.inference.settings import InferenceSettings
from beam_zoo.plan.run import Run
from beam_zoo.plan.snippet import Snippet
from beam_zoo.runtime.device import usable_device
from beam_zoo.runtime.logs import quieten
from beam_zoo.runtime.versions import check_source
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef, SnippetBatch, in_global_window
from beam_zoo.storage import layout

STORED = "stored"


class LoadImages(beam.DoFn):
    """Turns a snippet into batches of pixels.

    The last batches of a snippet are yielded when the next snippet has begun, so that the device does not
    wait in between. For a snippet that another job has stored by now, a reference goes to the output
    `STORED`.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def setup(self) -> None:
        quieten()
        run = self._run
        check_source(run.source)
        self._run = dataclasses.replace(run, device=usable_device(run.device, run.plan.precision))
        largest = min(run.batch_size, run.plan.snippet_size)
        self._images = ImageLoader(InferenceSettings.of(self._run), largest)

    def teardown(self) -> None:
        self._images.close()

    def start_bundle(self) -> None:
        self._images.forget()

    def process(self, snippet: Snippet) -> Iterator[Any]:
        run = self._run
        if parts.is_stored(run.plan, run.output, snippet):
            name = layout.part_name(snippet.number, snippet.attempt)
            yield beam.pvalue.TaggedOutput(STORED, PartRef(snippet.number, name))
            return
        ids, locations = run.plan.read_rows(run.output, snippet)
        make = functools.partial(SnippetBatch, snippet=snippet)
        for start in range(0, snippet.size, run.batch_size):
            offsets = snippet.offsets[start : start + run.batch_size]
            images = [self._image(offset, locations[offset]) for offset in offsets]
            yield from self._images.add(offsets, [ids[offset] for offset in offsets], images, make)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for batch in self._images.rest():
            yield in_global_window(batch)

    def _image(self, offset: int, location: str | None) -> Image:
        if not location:
            return Failure(offset, "image", "the catalogue has no file_loc for it", False)
        return image_path(location, self._run.image_root)
