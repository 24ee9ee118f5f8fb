"""The step that reads a snippet's rows and images, and sends them on in batches."""

import collections
import concurrent.futures
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import torch
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo.errors import one_line
from beam_zoo.images.batch_views import ViewTask, needed_side, view_task
from beam_zoo.images.decode import ImageError, image_path, read_bytes
from beam_zoo.images.decoders import (
    AHEAD,
    Decoded,
    Decoders,
    Decoding,
    Threads,
    Wanted,
    image_failure,
    view_failure,
)
from beam_zoo.images.decoding_processes import Processes
from beam_zoo.images.failure import Failure
from beam_zoo.images.gpu.card_decoder import CardDecoder, NoCardDecoder, OnCard
from beam_zoo.inference import randomness
from beam_zoo.plan.run import Run
from beam_zoo.plan.snippet import Snippet
from beam_zoo.runtime import progress
from beam_zoo.runtime.device import SideStream, one_thread, usable_device
from beam_zoo.runtime.logs import quieten
from beam_zoo.runtime.resources import cores
from beam_zoo.runtime.versions import check_source
from beam_zoo.samples import parts
from beam_zoo.samples.records import Batch, PartRef, in_global_window
from beam_zoo.storage import layout
from beam_zoo.storage.files import is_remote
from beam_zoo.storage.gcs import CONNECTIONS

LOGGER = logging.getLogger("beam_zoo")
STORED = "stored"
TOGETHER = 4
"""Batches that are decoded one after the other where nothing is done ahead.

The encoder's threads stay awake for some milliseconds after a batch, and are in the way of the decoders.
"""
MOVING = 3
"""Threads that move batches to a GPU: one that copies raw pixels of 424 px takes 0.15 ms an image (H100, 16 cores)."""


class LoadImages(beam.DoFn):
    """A snippet becomes batches of pixels; what is far away is fetched while another batch is predicted.

    For a GPU images are also decoded, and their pixels copied, in the meantime. The last batches of a snippet wait for the
    first of the next one, so that there is no pause in between.

    A galaxy without a usable image leaves the pixels here and travels on as a failure in its batch. A snippet
    that another job has stored by now goes to the output `STORED`, unread.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def setup(self) -> None:
        quieten()
        run, plan = self._run, self._run.plan
        check_source(run.source)
        device = usable_device(run.device, plan.precision)
        self._run = dataclasses.replace(run, device=device)
        tasks = list(
            {
                task.name: task
                for task in (view_task(m.view, m.random_of, plan.passes) for m in plan.members)
            }.values()
        )
        least_side = needed_side(tasks) if plan.fast_images else None
        decoding = Decoding(tasks, bool(plan.fast_views), least_side, plan.fast_images)
        # Waiting for an answer from afar needs no core.
        self._fetching = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)
        self._moving = concurrent.futures.ThreadPoolExecutor(MOVING, initializer=one_thread)
        self._side_stream = SideStream(device)
        self._together = 1 if AHEAD[device] else TOGETHER
        # Some are decoded now, as many are fetched, and others are moved to the device, or one is to spare.
        self._most = 2 * self._together + (MOVING if AHEAD[device] else 1)
        self._decoders = self._decoders_for(decoding, device)

    def teardown(self) -> None:
        self._fetching.shutdown(cancel_futures=True)
        self._moving.shutdown(cancel_futures=True)
        self._decoders.close()

    def _decoders_for(self, decoding: Decoding, device: str) -> Decoders:
        given = decoding, cores(), device
        if not AHEAD[device]:
            return Threads(*given)
        if not OnCard.suits(decoding):
            return self._processes(*given)
        try:
            return OnCard(CardDecoder(device, MOVING), lambda: self._processes(*given), *given)
        except NoCardDecoder as error:
            LOGGER.warning("this GPU decodes no JPEGs (%s): processor cores do, several times slower", error)
            return self._processes(*given)

    def _processes(self, *given: Any) -> Decoders:
        largest = min(self._run.batch_size, self._run.plan.snippet_size)
        try:
            return Processes(largest, self._most, *given)
        except (OSError, EOFError) as error:  # EOFError: the server could not part
            LOGGER.warning(
                "no processes can be started to decode images (%s): threads of the worker do it, several times slower",
                one_line(error) or type(error).__name__,
            )
            return Threads(*given)

    def start_bundle(self) -> None:
        self._waiting: collections.deque[Callable[[], Batch]] = collections.deque()

    def process(self, snippet: Snippet) -> Iterator[Any]:
        run = self._run
        if parts.is_stored(run.plan, run.output, snippet):
            name = layout.part_name(snippet.number, snippet.attempt)
            yield beam.pvalue.TaggedOutput(STORED, PartRef(snippet.number, name))
            return
        ids, locations = run.plan.read_rows(run.output, snippet)
        for start in range(0, snippet.size, run.batch_size):
            chosen = snippet.offsets[start : start + run.batch_size]
            self._waiting.append(self._start(snippet, chosen, ids, locations))
            if len(self._waiting) == self._most:
                yield from self._ready()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._waiting:
            for batch in self._ready():
                yield in_global_window(batch)

    def _ready(self) -> Iterator[Batch]:
        """The next batches; of a snippet they follow each other."""
        now = [self._waiting.popleft() for _ in range(min(self._together, len(self._waiting)))]
        ready = collections.deque(finish() for finish in now)
        while ready:
            yield ready.popleft()

    def _start(
        self, snippet: Snippet, offsets: tuple[int, ...], ids: list[str], locations: Sequence[str | None]
    ) -> Callable[[], Batch]:
        """Begin to read images; what is returned waits for their batch."""
        keys = randomness.galaxy_keys([ids[offset] for offset in offsets])
        draws = [self._draw_keys(view.task, keys) for view in self._decoders.views]
        decoded = self._decoders.start(
            [
                self._wanted(offset, locations[offset], [some[index] for some in draws])
                for index, offset in enumerate(offsets)
            ]
        )

        def finish() -> Batch:
            found = decoded()
            try:
                good, pixels = self._pixels(found, offsets)
            finally:
                found.done()
            failures = [left for left in found.left if isinstance(left, Failure)]
            if failures:
                progress.add(self._run.progress, failed=len(failures))
            return Batch(snippet, np.array(offsets, np.int64)[good], keys[good], pixels, {}, failures)

        if AHEAD[self._run.device]:
            return self._moving.submit(finish).result
        return finish

    def _draw_keys(self, task: ViewTask, keys: np.ndarray) -> list[list[int | None]]:
        """Where the draws of each image's views start; None for the one view without random draws."""
        if task.member is None:
            return [[None]] * len(keys)
        plan = self._run.plan
        draws = randomness.draw_keys(
            keys, seed=plan.seed, member=task.member, purpose="view", passes=plan.pass_numbers
        )
        return draws.tolist()

    def _wanted(
        self, offset: int, location: str | None, keys: list[list[int | None]]
    ) -> Callable[[], Wanted]:
        """Begin to fetch an image from afar; what is returned waits for it."""
        if not location:
            nothing = Failure(offset, "image", "the catalogue has no file_loc for it", False)
            return functools.partial(Wanted, offset, nothing, keys)
        path = image_path(location, self._run.image_root)
        if not is_remote(path):
            return functools.partial(Wanted, offset, path, keys)
        return functools.partial(_fetched, offset, self._fetching.submit(read_bytes, path), keys)

    def _pixels(self, found: Decoded, offsets: Sequence[int]) -> tuple[list[int], dict[str, torch.Tensor]]:
        """Which images are good, and their pixels. Views that fail now become failures among what is found."""

        def good() -> list[int]:
            return [index for index, left in enumerate(found.left) if not isinstance(left, Failure)]

        def collect(chosen: list[int]) -> dict[str, torch.Tensor]:
            pixels = {}
            with self._side_stream():
                for number, (view, memory) in enumerate(zip(self._decoders.views, found.memory, strict=True)):
                    left: list[Any] = [found.left[index] for index in chosen]
                    own = [one[number] for one in left]
                    pixels[view.task.name] = view.collect(memory, chosen, own, self._run.device)
            return pixels

        try:
            return good(), collect(good())
        except Exception:  # One by one, to find whose view it is.
            for index in good():
                try:
                    collect([index])
                except Exception as error:
                    found.left[index] = view_failure(offsets[index], error)
        return good(), collect(good())


def _fetched(offset: int, file: concurrent.futures.Future[bytes], keys: list[list[int | None]]) -> Wanted:
    """Wait for an image from afar."""
    try:
        return Wanted(offset, file.result(), keys)
    except ImageError as error:
        return Wanted(offset, image_failure(offset, error), keys)
