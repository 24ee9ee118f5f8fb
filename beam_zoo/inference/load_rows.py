"""The step that loads the images of rows of any pipeline in batches; for `beam_zoo.Predict`."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo.images.decode import image_path, is_outside
from beam_zoo.images.failure import Failure
from beam_zoo.inference.image_loader import Image, ImageLoader
from beam_zoo.inference.settings import InferenceSettings
from beam_zoo.runtime.device import usable_device
from beam_zoo.samples.records import Row, RowBatch
from beam_zoo.storage.files import is_remote


class LoadRows(beam.DoFn):
    """Turns dictionaries with `id_str` and `file_loc`, or `image`, into batches of one window each.

    A row that cannot be used becomes a failure in its batch. Every batch is complete when its bundle ends.

    Args:
        settings: of the ensemble.
        image_root: folder of relative image paths; None to refuse these.
        allow_outside: whether image paths may be outside `image_root`.
    """

    def __init__(self, settings: InferenceSettings, image_root: str | None, allow_outside: bool) -> None:
        self._settings, self._root, self._allow_outside = settings, image_root, allow_outside

    def setup(self) -> None:
        device = usable_device(self._settings.device, self._settings.precision)
        self._settings = dataclasses.replace(self._settings, device=device)
        self._images = ImageLoader(self._settings, self._settings.batch_size)

    def teardown(self) -> None:
        self._images.close()

    def start_bundle(self) -> None:
        self._images.forget()
        self._waiting: dict[BoundedWindow, list[Row]] = {}

    def process(
        self,
        values: Mapping[str, Any],
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowedValue]:
        waiting = self._waiting.setdefault(window, [])
        waiting.append(Row(values, timestamp))
        if len(waiting) == self._settings.batch_size:
            yield from self._start(self._waiting.pop(window), window)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._waiting:
            window, rows = self._waiting.popitem()
            yield from self._start(rows, window)
        yield from map(_in_its_window, self._images.rest())

    def _start(self, rows: list[Row], window: BoundedWindow) -> Iterator[WindowedValue]:
        make = functools.partial(RowBatch, rows=rows, window=window)
        images = [self._image(offset, row.values) for offset, row in enumerate(rows)]
        ids = [str(row.values.get("id_str")) for row in rows]
        yield from map(_in_its_window, self._images.add(range(len(rows)), ids, images, make))

    def _image(self, offset: int, values: Mapping[str, Any]) -> Image:
        """The path or content of a row's image, or a failure if the row cannot be used."""
        galaxy, location, content = (values.get(key) for key in ("id_str", "file_loc", "image"))

        def failure(reason: str) -> Failure:
            return Failure(offset, "image", reason, False)

        if not isinstance(galaxy, str) or not galaxy:
            return failure(f"id_str must be text, not {galaxy!r:.100}")
        if content is not None:
            return content if isinstance(content, bytes) else failure("image must be bytes")
        if not isinstance(location, str) or not location:
            return failure("the row has neither file_loc nor image")
        if self._root is None:
            if not os.path.isabs(location) and not is_remote(location):
                return failure(f"file_loc {location!r:.300} is relative: give image_root")
            return location
        if not self._allow_outside and is_outside(location, self._root):
            return failure(f"file_loc {location!r:.300} is outside {self._root}")
        return image_path(location, self._root)


def _in_its_window(batch: Any) -> WindowedValue:
    """A batch with the timestamp of its earliest row, so that the runner does not close the window before."""
    return WindowedValue(batch, min(row.timestamp for row in batch.rows), (batch.window,))
