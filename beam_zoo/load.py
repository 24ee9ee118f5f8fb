"""The step that reads a snippet's rows and images, and sends them on in batches."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from beam_zoo import parts, progress, randomness
from beam_zoo.errors import one_line
from beam_zoo.files import is_remote
from beam_zoo.gcs import CONNECTIONS
from beam_zoo.images import ImageError, decode, image_path, load_image, read_bytes
from beam_zoo.members import Member
from beam_zoo.plan import Plan
from beam_zoo.quiet import quieten
from beam_zoo.records import Batch, Failure, PartRef, Snippet
from beam_zoo.run import Run
from beam_zoo.versions import check_source
from beam_zoo.views import GLOBAL_GENERATOR, View

STORED = "stored"
_BATCHES_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class ViewTask:
    """A view that images are needed in: of one member if it is random, else of all that share it.

    Attributes:
        name: key of `Batch.pixels`.
        settings: of the view.
        member: whose random draws it takes, or None.
        views: how many views of a galaxy.
    """

    name: str
    settings: dict[str, Any]
    member: str | None
    views: int


def view_task(member: Member, plan: Plan) -> ViewTask:
    """The view task of a member."""
    settings = json.dumps(member.view, sort_keys=True)
    name = hashlib.sha256(settings.encode()).hexdigest()[:16]
    if member.random_view:
        return ViewTask(f"{member.name}:{name}", member.view, member.name, plan.passes)
    return ViewTask(name, member.view, None, 1)


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
        check_source(self._run.source)
        tasks = [view_task(member, self._run.plan) for member in self._run.plan.members]
        unique = {task.name: task for task in tasks}
        self._tasks = [(task, View(task.settings)) for task in unique.values()]
        # Deterministic views draw too: next to random ones they must not do so at the same time.
        random = any(task.member is not None for task in unique.values())
        self._undisturbed = GLOBAL_GENERATOR if random else contextlib.nullcontext()
        # Decoding and resizing release the GIL; more threads than cores only take them from the encoder.
        self._pool = concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 2))
        # Waiting for an answer from afar needs no core.
        self._fetching = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)

    def teardown(self) -> None:
        self._pool.shutdown()
        self._fetching.shutdown()

    def process(self, snippet: Snippet) -> Iterator[Any]:
        run = self._run
        if parts.is_stored(run.plan, run.output, snippet):
            name = parts.part_name(snippet.number, snippet.attempt)
            yield beam.pvalue.TaggedOutput(STORED, PartRef(snippet.number, name))
            return
        ids, locations = run.plan.read_rows(run.output, snippet)
        waiting: collections.deque[_Loading] = collections.deque()
        offsets = snippet.offsets
        for start in range(0, len(offsets), run.batch_size):
            chosen = offsets[start : start + run.batch_size]
            waiting.append(self._start(snippet, chosen, ids, locations))
            if len(waiting) > _BATCHES_AHEAD:
                yield waiting.popleft().finish(run)
        while waiting:
            yield waiting.popleft().finish(run)

    def _start(
        self, snippet: Snippet, offsets: tuple[int, ...], ids: list[str], locations: Sequence[str | None]
    ) -> "_Loading":
        plan = self._run.plan
        keys = randomness.galaxy_keys([ids[offset] for offset in offsets])
        pixels, draws = {}, {}
        for task, view in self._tasks:
            pixels[task.name] = np.empty((len(offsets), task.views, *view.shape), np.uint8)
            if task.member is not None:
                draws[task.name] = randomness.draw_keys(
                    keys, seed=plan.seed, member=task.member, purpose="view", passes=plan.pass_numbers
                )

        wanted = [locations[offset] for offset in offsets]
        paths = [image_path(location, self._run.image_root) if location else None for location in wanted]
        afar = {
            index: self._fetching.submit(read_bytes, path)
            for index, path in enumerate(paths)
            if path is not None and is_remote(path)
        }

        def load(index: int) -> Failure | None:
            path = paths[index]
            if path is None:
                return Failure(offsets[index], "image", "the catalogue has no file_loc for it", False)
            try:
                image = decode(afar.pop(index).result()) if index in afar else load_image(path)
            except ImageError as error:
                return Failure(offsets[index], "image", one_line(error), error.may_pass)
            try:
                for task, view in self._tasks:
                    if task.name not in draws:
                        with self._undisturbed:
                            pixels[task.name][index, 0] = view.pixels(image)
                        continue
                    for number, key in enumerate(draws[task.name][index]):
                        pixels[task.name][index, number] = view.pixels(image, int(key))
            except Exception as error:
                return Failure(offsets[index], "view", one_line(error), isinstance(error, MemoryError))
            return None

        futures = [self._pool.submit(load, index) for index in range(len(offsets))]
        return _Loading(snippet, np.array(offsets, np.int64), keys, pixels, futures)


@dataclasses.dataclass
class _Loading:
    """A batch whose images are being read."""

    snippet: Snippet
    offsets: np.ndarray
    keys: np.ndarray
    pixels: dict[str, np.ndarray]
    futures: list[concurrent.futures.Future[Failure | None]]

    def finish(self, run: Run) -> Batch:
        results = [future.result() for future in self.futures]
        failures = [failure for failure in results if failure is not None]
        if failures:
            good = np.array([failure is None for failure in results])
            self.offsets, self.keys = self.offsets[good], self.keys[good]
            self.pixels = {name: pixels[good] for name, pixels in self.pixels.items()}
            progress.add(run.progress, failed=len(failures))
        return Batch(self.snippet, self.offsets, self.keys, self.pixels, {}, failures)
