"""The step that loads the images of rows of any pipeline in batches; for `beam_zoo.Predict`."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

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

MOST_WAITING = 4
"""Batches' worth of rows that wait in a bundle of several windows; then the fullest window is predicted."""


class LoadRows(beam.DoFn):
    """Dictionaries with `id_str` and `file_loc`, or `image`, become batches of pixels, of one window each.

    A row that cannot be used travels on as a failure in its batch. No row waits for another bundle.

    Args:
        settings: of the ensemble.
        image_root: where relative image paths start, which paths may not leave; None to refuse relative ones.
        allow_outside: whether image paths may leave the image root.
        carried: keys that a row must have, and that travel with it.
    """

    def __init__(
        self,
        settings: InferenceSettings,
        image_root: str | None,
        allow_outside: bool,
        carried: Sequence[str] = (),
    ) -> None:
        self._settings, self._root, self._allow_outside = settings, image_root, allow_outside
        self._carried = tuple(carried)

    def setup(self) -> None:
        device = usable_device(self._settings.device, self._settings.precision)
        self._settings = dataclasses.replace(self._settings, device=device)
        self._images = ImageLoader(self._settings, self._settings.batch_size)

    def teardown(self) -> None:
        self._images.close()

    def start_bundle(self) -> None:
        self._images.forget()
        self._waiting: dict[BoundedWindow, list[tuple[Row, Image]]] = {}

    def process(
        self,
        values: Mapping[str, Any],
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowedValue]:
        waiting = self._waiting.setdefault(window, [])
        # The image's bytes, and what nobody asked for, do not travel further.
        kept = {key: values.get(key) for key in ("id_str", "file_loc", *self._carried)}
        waiting.append((Row(kept, timestamp), self._image(len(waiting), values)))
        if len(waiting) == self._settings.batch_size:
            yield from self._start(window)
        elif sum(map(len, self._waiting.values())) == MOST_WAITING * self._settings.batch_size:
            yield from self._start(max(self._waiting, key=lambda each: len(self._waiting[each])))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for window in [*self._waiting]:
            yield from self._start(window)
        yield from map(_in_its_window, self._images.rest())

    def _start(self, window: BoundedWindow) -> Iterator[WindowedValue]:
        rows, images = zip(*self._waiting.pop(window), strict=True)
        make = functools.partial(RowBatch, rows=rows, window=window)
        ids = [row.values["id_str"] if _is_text(row.values["id_str"]) else "" for row in rows]
        yield from map(_in_its_window, self._images.add(range(len(rows)), ids, images, make))

    def _image(self, offset: int, values: Mapping[str, Any]) -> Image:
        """Where the image of a row is, or its content; or what is wrong with the row."""
        galaxy, location, content = (values.get(key) for key in ("id_str", "file_loc", "image"))

        def failure(reason: str) -> Failure:
            return Failure(offset, "image", reason, False)

        if not _is_text(galaxy):
            return failure(f"id_str must be text, not {galaxy!r:.100}")
        if missing := [key for key in self._carried if key not in values]:
            return failure(f"the row has no {missing[0]!r}")
        if content is not None:
            return content if isinstance(content, bytes) else failure("image must be bytes")
        if not _is_text(location):
            return failure("the row has neither file_loc nor image")
        if self._root is None:
            if not os.path.isabs(location) and not is_remote(location):
                return failure(f"file_loc {location!r:.300} is relative: give image_root")
            return location
        if not self._allow_outside and is_outside(location, self._root):
            return failure(f"file_loc {location!r:.300} is outside {self._root}")
        return image_path(location, self._root)


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)


def _in_its_window(batch: Any) -> WindowedValue:
    """A batch with the timestamp of its earliest row, so that the runner does not close the window before."""
    return WindowedValue(batch, min(row.timestamp for row in batch.rows), (batch.window,))
