"""The step that reads a snippet's rows and images, and sends them on in batches."""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import torch

from beam_zoo import parts, progress, randomness
from beam_zoo.batch_views import BatchViews, EarlyViews, LateViews, ViewTask, needed_side, view_task
from beam_zoo.device import SideStream, one_thread, out_of_memory, usable_device
from beam_zoo.errors import UserError, one_line
from beam_zoo.fast_views import FastView
from beam_zoo.files import is_remote
from beam_zoo.gcs import CONNECTIONS
from beam_zoo.images import ImageError, decode, image_path, load_image, read_bytes
from beam_zoo.quiet import quieten
from beam_zoo.records import Batch, Failure, PartRef, Snippet
from beam_zoo.run import Run
from beam_zoo.versions import check_source
from beam_zoo.views import View

STORED = "stored"
AHEAD = {"cpu": False, "cuda": True}
"""Whether images are decoded, and views made, while another batch is predicted.

On a CPU the encoder has all cores already, and its threads wait for each other: a core lent to a decoder costs the time of all.
"""
TOGETHER = 4
"""Batches that are decoded one after the other where nothing is done ahead.

The encoder's threads stay awake for some milliseconds after a batch, and are in the way of the decoders.
"""


def _without(results: list[Failure | None]) -> np.ndarray:
    """The places without a failure."""
    return np.array([index for index, failure in enumerate(results) if failure is None], np.int64)


class LoadImages(beam.DoFn):
    """A snippet becomes batches of pixels; what is far away is fetched while another batch is predicted.

    For a GPU images are also decoded, and their pixels copied, in the meantime.

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
        tasks = list({task.name: task for task in (view_task(m, plan) for m in plan.members)}.values())
        alone = all(task.member is None for task in tasks)
        views = [
            FastView(task.settings, device, alone=alone)
            if plan.fast_views
            else View(task.settings, alone=alone)
            for task in tasks
        ]
        self._tasks = list(zip(tasks, views, strict=True))
        self._least_side = needed_side(tasks) if plan.fast_images else None
        # Waiting for an answer from afar needs no core; decoding and resizing release the GIL.
        self._fetching = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)
        cores = run.threads or os.cpu_count() or 2
        self._decoding = concurrent.futures.ThreadPoolExecutor(max(2, cores), initializer=one_thread)
        self._moving = concurrent.futures.ThreadPoolExecutor(1)
        self._side_stream = SideStream(device)

    def teardown(self) -> None:
        for pool in (self._fetching, self._decoding, self._moving):
            pool.shutdown(cancel_futures=True)

    def process(self, snippet: Snippet) -> Iterator[Any]:
        run = self._run
        if parts.is_stored(run.plan, run.output, snippet):
            name = parts.part_name(snippet.number, snippet.attempt)
            yield beam.pvalue.TaggedOutput(STORED, PartRef(snippet.number, name))
            return
        ids, locations = run.plan.read_rows(run.output, snippet)
        together = 1 if AHEAD[run.device] else TOGETHER
        starts = iter(range(0, snippet.size, run.batch_size))
        waiting: collections.deque[Callable[[], Batch]] = collections.deque()
        while True:
            for start in itertools.islice(starts, 2 * together + 1 - len(waiting)):
                chosen = snippet.offsets[start : start + run.batch_size]
                waiting.append(self._start(snippet, chosen, ids, locations))
            if not waiting:
                return
            now = [waiting.popleft() for _ in range(min(together, len(waiting)))]
            ready = collections.deque(finish() for finish in now)
            while ready:
                yield ready.popleft()

    def _start(
        self, snippet: Snippet, offsets: tuple[int, ...], ids: list[str], locations: Sequence[str | None]
    ) -> Callable[[], Batch]:
        """Begin to read images; what is returned waits for their batch."""
        keys = randomness.galaxy_keys([ids[offset] for offset in offsets])
        wanted = [locations[offset] for offset in offsets]
        paths = [image_path(location, self._run.image_root) if location else None for location in wanted]
        afar = {
            index: self._fetching.submit(read_bytes, path)
            for index, path in enumerate(paths)
            if path is not None and is_remote(path)
        }
        views = [self._views(task, view, keys) for task, view in self._tasks]

        def load(index: int) -> Failure | None:
            path = paths[index]
            if path is None:
                return Failure(offsets[index], "image", "the catalogue has no file_loc for it", False)
            try:
                if index in afar:
                    image = decode(afar.pop(index).result(), self._least_side)
                else:
                    image = load_image(path, self._least_side)
            except ImageError as error:
                return Failure(offsets[index], "image", one_line(error), error.may_pass)
            return viewed(index, lambda: [some.add(index, image) for some in views])

        def viewed(index: int, make: Callable[[], Any]) -> Failure | None:
            try:
                make()
            except Exception as error:
                short = isinstance(error, RuntimeError) and out_of_memory(error)
                may_pass = short or isinstance(error, MemoryError | UserError)  # on a larger device
                return Failure(offsets[index], "view", one_line(error), may_pass)
            return None

        def pixels_of(good: np.ndarray) -> dict[str, torch.Tensor]:
            with self._side_stream():
                return {some.task.name: some.pixels(good) for some in views}

        def finish(loading: Iterator[Failure | None]) -> Batch:
            results = list(loading)
            good = _without(results)
            try:
                pixels = pixels_of(good)
            except Exception:  # One by one, to find whose view it is.
                for index in good:
                    results[index] = viewed(index, functools.partial(pixels_of, np.array([index])))
                good = _without(results)
                pixels = pixels_of(good)
            failures = [failure for failure in results if failure is not None]
            if failures:
                progress.add(self._run.progress, failed=len(failures))
            return Batch(snippet, np.array(offsets, np.int64)[good], keys[good], pixels, {}, failures)

        def decode_all() -> Iterator[Failure | None]:
            return self._decoding.map(load, range(len(offsets)))

        if AHEAD[self._run.device]:
            return self._moving.submit(finish, decode_all()).result
        return lambda: finish(decode_all())

    def _views(self, task: ViewTask, view: View, keys: np.ndarray) -> BatchViews:
        plan = self._run.plan
        draws = None
        if task.member is not None:
            draws = randomness.draw_keys(
                keys, seed=plan.seed, member=task.member, purpose="view", passes=plan.pass_numbers
            )
        if isinstance(view, FastView) and AHEAD[self._run.device]:
            return LateViews(view, self._side_stream, task, len(keys), draws)
        return EarlyViews(view, self._run.device, task, len(keys), draws)
