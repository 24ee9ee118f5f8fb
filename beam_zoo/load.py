"""The step that reads a snippet's rows and images, and sends them on in batches."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from beam_zoo import parts, progress, randomness
from beam_zoo.batch_views import BatchViews, ExactViews, LateViews, ViewTask, needed_side, view_task
from beam_zoo.device import SideStream, usable_device
from beam_zoo.errors import one_line
from beam_zoo.fast_views import FastView
from beam_zoo.files import is_remote
from beam_zoo.gcs import CONNECTIONS
from beam_zoo.images import ImageError, decode, image_path, load_image, read_bytes
from beam_zoo.quiet import quieten
from beam_zoo.records import Batch, Failure, PartRef, Snippet
from beam_zoo.run import Run
from beam_zoo.versions import check_source
from beam_zoo.views import GLOBAL_GENERATOR, View

STORED = "stored"
_BATCHES_AHEAD = 2


class LoadImages(beam.DoFn):
    """A snippet becomes batches of pixels; images of the next batches are read while one is predicted.

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
        self._run = dataclasses.replace(run, device=usable_device(run.device, plan.precision))
        tasks = [view_task(member, plan) for member in plan.members]
        device = self._run.device
        self._tasks = [
            (task, FastView(task.settings, device) if plan.fast_views else View(task.settings))
            for task in {task.name: task for task in tasks}.values()
        ]
        # Deterministic views draw too: next to random ones they must not do so at the same time.
        random = any(task.member is not None for task in tasks)
        self._undisturbed = GLOBAL_GENERATOR if random else contextlib.nullcontext()
        self._least_side = needed_side(tasks) if plan.fast_images else None
        # Decoding and resizing release the GIL; more threads than cores only take them from the encoder.
        self._pool = concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 2))
        # Waiting for an answer from afar needs no core.
        self._fetching = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)
        self._moving = concurrent.futures.ThreadPoolExecutor(1)
        self._side_stream = SideStream(self._run.device)

    def teardown(self) -> None:
        for pool in (self._pool, self._fetching, self._moving):
            pool.shutdown()

    def process(self, snippet: Snippet) -> Iterator[Any]:
        run = self._run
        if parts.is_stored(run.plan, run.output, snippet):
            name = parts.part_name(snippet.number, snippet.attempt)
            yield beam.pvalue.TaggedOutput(STORED, PartRef(snippet.number, name))
            return
        ids, locations = run.plan.read_rows(run.output, snippet)
        waiting: collections.deque[concurrent.futures.Future[Batch]] = collections.deque()
        offsets = snippet.offsets
        for start in range(0, len(offsets), run.batch_size):
            chosen = offsets[start : start + run.batch_size]
            waiting.append(self._start(snippet, chosen, ids, locations))
            if len(waiting) > _BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _start(
        self, snippet: Snippet, offsets: tuple[int, ...], ids: list[str], locations: Sequence[str | None]
    ) -> concurrent.futures.Future[Batch]:
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
            try:
                for some in views:
                    some.add(index, image)
            except Exception as error:
                return Failure(offsets[index], "view", one_line(error), isinstance(error, MemoryError))
            return None

        loading = [self._pool.submit(load, index) for index in range(len(offsets))]

        def finish() -> Batch:
            results = [future.result() for future in loading]
            failures = [failure for failure in results if failure is not None]
            good = np.array([index for index, failure in enumerate(results) if failure is None], np.int64)
            if failures:
                progress.add(self._run.progress, failed=len(failures))
            with self._side_stream():
                pixels = {some.task.name: some.pixels(good) for some in views}
            return Batch(snippet, np.array(offsets, np.int64)[good], keys[good], pixels, {}, failures)

        return self._moving.submit(finish)

    def _views(self, task: ViewTask, view: View, keys: np.ndarray) -> "BatchViews":
        plan = self._run.plan
        draws = None
        if task.member is not None:
            draws = randomness.draw_keys(
                keys, seed=plan.seed, member=task.member, purpose="view", passes=plan.pass_numbers
            )
        if isinstance(view, FastView):
            return LateViews(task, view, len(keys), draws)
        return ExactViews(task, view, len(keys), draws, self._run.device, self._undisturbed)
