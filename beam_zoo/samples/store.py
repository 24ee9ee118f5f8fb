"""The step that stores samples, before any shuffle: what was inferred is durable when it is passed on."""

import dataclasses
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import apache_beam as beam
import numpy as np

from beam_zoo.images.failure import Failure
from beam_zoo.plan.run import Run
from beam_zoo.plan.snippet import Snippet
from beam_zoo.samples import part_writer
from beam_zoo.samples.records import Batch, PartRef, SnippetBatch, in_global_window

LOGGER = logging.getLogger("beam_zoo")
REMAINDERS = "remainders"
B = TypeVar("B", bound=Batch)


class Store(beam.DoFn):
    """Collects the batches of each snippet, stores a complete snippet as a part, and emits its reference.

    Normally a runner fuses inference and this step, and the batches of a snippet arrive one after the other.
    Batches of snippets that are incomplete when a bundle ends go to the output `REMAINDERS`, as (snippet
    number, batch). A part is written while the next snippet is predicted; its reference is emitted once it is
    durable.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def setup(self) -> None:
        self._writer = ThreadPoolExecutor(1)

    def teardown(self) -> None:
        self._writer.shutdown()

    def start_bundle(self) -> None:
        self._waiting: dict[Snippet, list[SnippetBatch]] = {}
        self._galaxies: dict[Snippet, int] = {}
        self._writing: deque[Future[PartRef | None]] = deque()

    def process(self, batch: SnippetBatch) -> Iterator[PartRef]:
        waiting = self._waiting.setdefault(batch.snippet, [])
        waiting.append(dataclasses.replace(batch, pixels={}))
        here = self._galaxies.get(batch.snippet, 0) + len(batch) + len(batch.failures)
        self._galaxies[batch.snippet] = here
        if here == batch.snippet.size:
            del self._waiting[batch.snippet], self._galaxies[batch.snippet]
            # At most one part waits to be written.
            yield from self._written(1)
            self._writing.append(self._writer.submit(store, self._run, batch.snippet, waiting))

    def finish_bundle(self) -> Iterator[Any]:
        for ref in self._written(0):
            yield in_global_window(ref)
        for snippet, batches in self._waiting.items():
            for batch in batches:
                yield beam.pvalue.TaggedOutput(
                    REMAINDERS, in_global_window((snippet.number, batch.on_host()))
                )
        self._waiting = {}

    def _written(self, at_most: int) -> Iterator[PartRef]:
        """References of the parts that are written by now; waits until at most `at_most` are not."""
        while self._writing and (len(self._writing) > at_most or self._writing[0].done()):
            ref = self._writing.popleft().result()
            if ref is not None:
                yield ref


class StoreGathered(beam.DoFn):
    """Stores snippets whose batches a GroupByKey has grouped.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def process(self, gathered: tuple[int, Iterable[SnippetBatch]]) -> Iterator[PartRef]:
        batches = list(gathered[1])
        ref = store(self._run, batches[0].snippet, batches)
        if ref is not None:
            yield ref


def store(run: Run, snippet: Snippet, batches: list[SnippetBatch]) -> PartRef | None:
    """Write a snippet's part; its reference, or None if galaxies were retried and none succeeded."""
    finite = [finite_only(batch.on_host()) for batch in batches]
    ref = part_writer.write_parts(run.plan, run.output, snippet, finite)
    if ref is not None:
        LOGGER.info("snippet %d is stored", snippet.number)
    return ref


def finite_only(batch: B) -> B:
    """The batch, in which galaxies with NaN or infinite outputs are failures: such outputs reach no table."""
    good = np.ones(len(batch), bool)
    failures = []
    for name, values in batch.outputs.items():
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        for index in np.flatnonzero(good & ~finite):
            reason = f"member {name} gave NaN or infinite outputs"
            failures.append(Failure(int(batch.offsets[index]), "inference", reason, False))
        good &= finite
    if not failures:
        return batch
    return dataclasses.replace(
        batch,
        offsets=batch.offsets[good],
        galaxy_keys=batch.galaxy_keys[good],
        outputs={name: values[good] for name, values in batch.outputs.items()},
        failures=[*batch.failures, *failures],
    )
