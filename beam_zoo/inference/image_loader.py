"""Read and decode batches of images, and make the views that the members need."""

import collections
import concurrent.futures
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from beam_zoo.errors import UserError, one_line
from beam_zoo.images.batch_views import ViewTask, needed_side, view_task
from beam_zoo.images.decode import ImageError, read_bytes
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
from beam_zoo.inference.settings import InferenceSettings
from beam_zoo.runtime import progress
from beam_zoo.runtime.device import SideStream, one_thread
from beam_zoo.runtime.resources import cores
from beam_zoo.samples.records import Batch
from beam_zoo.storage.files import is_remote
from beam_zoo.storage.gcs import CONNECTIONS

LOGGER = logging.getLogger("beam_zoo")
Image = str | bytes | Failure
"""An image's path, the content of its file, or a failure."""
TOGETHER = 4
"""Batches that are decoded one after the other on a CPU, before they are predicted.

The encoder's OpenMP threads keep spinning for some milliseconds after a batch, and slow the decoders down.
"""
MOVING = 3
"""Threads that copy batches to a GPU: one needs 0.15 ms for an image of 424 px (H100, 16 cores)."""


class ImageLoader:
    """Makes batches of images. Remote images are downloaded while another batch is predicted.

    For a GPU, decoding and copying are done ahead too.

    Args:
        settings: of the ensemble; its device is `cpu` or `cuda`.
        largest: galaxies of the largest batch.
    """

    def __init__(self, settings: InferenceSettings, largest: int) -> None:
        self._settings, self._largest = settings, largest
        device = settings.device
        tasks = {
            task.name: task
            for task in (view_task(m.view, m.random_of, settings.passes) for m in settings.members)
        }
        least_side = needed_side([*tasks.values()]) if settings.fast_images else None
        decoding = Decoding([*tasks.values()], settings.fast_views, least_side)
        self._fetching = concurrent.futures.ThreadPoolExecutor(CONNECTIONS)
        self._moving = concurrent.futures.ThreadPoolExecutor(MOVING, initializer=one_thread)
        self._side_stream = SideStream(device)
        self._together = 1 if AHEAD[device] else TOGETHER
        # Batches being decoded, as many being downloaded, and those being copied to the GPU, or one more.
        self._most = 2 * self._together + (MOVING if AHEAD[device] else 1)
        self._decoders = self._decoders_for(decoding, device)
        self._started: collections.deque[Callable[[], Batch]] = collections.deque()

    def close(self) -> None:
        """End the threads and processes."""
        self._fetching.shutdown(cancel_futures=True)
        self._moving.shutdown(cancel_futures=True)
        self._decoders.close()

    def forget(self) -> None:
        """Drop the batches of a failed bundle."""
        self._started.clear()

    def add(
        self,
        offsets: Sequence[int],
        ids: Sequence[str],
        images: Sequence[Image],
        make: Callable[..., Batch],
    ) -> Iterator[Batch]:
        """Begin to load a batch; yield earlier batches if as many are in progress as may be.

        Args:
            offsets: index of each galaxy in its snippet or bundle.
            ids: of the galaxies.
            images: of the galaxies.
            make: makes the batch from the fields of `Batch`.

        Yields:
            Batches in the order in which they were added, with a failure for each galaxy without a usable
            image.
        """
        self._started.append(self._start(offsets, ids, images, make))
        if len(self._started) == self._most:
            yield from self._ready()

    def rest(self) -> Iterator[Batch]:
        """Yield the batches that `add` has not yielded."""
        while self._started:
            yield from self._ready()

    def _decoders_for(self, decoding: Decoding, device: str) -> Decoders:
        given = decoding, cores(), device
        if not AHEAD[device]:
            if self._settings.gpu_decoder:
                raise UserError("this worker has no GPU: leave --gpu_decoder out")
            return Threads(*given)
        if not self._settings.gpu_decoder:
            return self._processes(*given)
        try:
            return OnCard(CardDecoder(device, MOVING), lambda: self._processes(*given), *given)
        except NoCardDecoder as error:
            raise UserError(f"this GPU decodes no JPEGs ({error}): leave --gpu_decoder out") from None

    def _processes(self, *given: Any) -> Decoders:
        try:
            return Processes(self._largest, self._most, *given)
        except (OSError, EOFError) as error:  # EOFError: the fork server could not fork
            LOGGER.warning(
                "no processes can be started to decode images (%s): "
                "threads of the worker do it, several times slower",
                one_line(error) or type(error).__name__,
            )
            return Threads(*given)

    def _ready(self) -> Iterator[Batch]:
        now = [self._started.popleft() for _ in range(min(self._together, len(self._started)))]
        ready = collections.deque(finish() for finish in now)
        while ready:
            yield ready.popleft()

    def _start(
        self,
        offsets: Sequence[int],
        ids: Sequence[str],
        images: Sequence[Image],
        make: Callable[..., Batch],
    ) -> Callable[[], Batch]:
        """Begin to load a batch; returns a function that waits for it."""
        keys = randomness.galaxy_keys([*ids])
        draws = [self._draw_keys(view.task, keys) for view in self._decoders.views]
        wanted = [
            self._wanted(offset, image, [some[index] for some in draws])
            for index, (offset, image) in enumerate(zip(offsets, images, strict=True))
        ]
        decoded = self._decoders.start(wanted)

        def finish() -> Batch:
            found = decoded()
            try:
                good, pixels = self._pixels(found, offsets)
            finally:
                found.done()
            failures = [left for left in found.left if isinstance(left, Failure)]
            if failures:
                progress.add(self._settings.progress, failed=len(failures))
            return make(
                offsets=np.array(offsets, np.int64)[good],
                galaxy_keys=keys[good],
                pixels=pixels,
                outputs={},
                failures=failures,
            )

        if AHEAD[self._settings.device]:
            return self._moving.submit(finish).result
        return finish

    def _draw_keys(self, task: ViewTask, keys: np.ndarray) -> list[list[int | None]]:
        """The random keys of each image's views; None for the one view without random draws."""
        if task.member is None:
            return [[None]] * len(keys)
        seed, passes = self._settings.seed, self._settings.pass_numbers
        draws = randomness.draw_keys(keys, seed=seed, member=task.member, purpose="view", passes=passes)
        return draws.tolist()

    def _wanted(self, offset: int, image: Image, keys: list[list[int | None]]) -> Callable[[], Wanted]:
        """Begin to download a remote image; returns a function that waits for it."""
        if isinstance(image, str) and is_remote(image):
            return functools.partial(_fetched, offset, self._fetching.submit(read_bytes, image), keys)
        return functools.partial(Wanted, offset, image, keys)

    def _pixels(self, found: Decoded, offsets: Sequence[int]) -> tuple[list[int], dict[str, torch.Tensor]]:
        """Indices of the images without a failure, and their pixels; a view that fails becomes a failure."""

        def good() -> list[int]:
            return [index for index, left in enumerate(found.left) if not isinstance(left, Failure)]

        def collect(chosen: list[int]) -> dict[str, torch.Tensor]:
            pixels = {}
            with self._side_stream():
                for number, (view, memory) in enumerate(zip(self._decoders.views, found.memory, strict=True)):
                    left: list[Any] = [found.left[index] for index in chosen]
                    own = [one[number] for one in left]
                    pixels[view.task.name] = view.collect(memory, chosen, own, self._settings.device)
            return pixels

        try:
            return good(), collect(good())
        except Exception:  # make the views one by one, to find the image that fails
            for index in good():
                try:
                    collect([index])
                except Exception as error:
                    found.left[index] = view_failure(offsets[index], error)
        return good(), collect(good())


def _fetched(offset: int, file: concurrent.futures.Future[bytes], keys: list[list[int | None]]) -> Wanted:
    """Wait for a remote image."""
    try:
        return Wanted(offset, file.result(), keys)
    except ImageError as error:
        return Wanted(offset, image_failure(offset, error), keys)
