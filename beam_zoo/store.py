"""The step that makes samples durable, before any shuffle that follows inference."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo import parts
from beam_zoo.records import Batch, Failure, PartRef, Snippet
from beam_zoo.run import Run

LOGGER = logging.getLogger("beam_zoo")
REMAINDERS = "remainders"


class Store(beam.DoFn):
    """Gathers the batches of a snippet; when it is whole, it becomes a part and goes on as a reference.

    Normally a runner fuses inference and this step, and all batches of a snippet come one after the other. What
    is incomplete at the end of a bundle goes to the output `REMAINDERS`, as (snippet number, batch).

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def start_bundle(self) -> None:
        self._waiting: dict[Snippet, list[Batch]] = {}
        self._galaxies: dict[Snippet, int] = {}

    def process(self, batch: Batch) -> Iterator[PartRef]:
        waiting = self._waiting.setdefault(batch.snippet, [])
        waiting.append(finite_only(dataclasses.replace(batch, pixels={})))
        here = self._galaxies.get(batch.snippet, 0) + len(batch) + len(batch.failures)
        self._galaxies[batch.snippet] = here
        if here == batch.snippet.size:
            del self._waiting[batch.snippet], self._galaxies[batch.snippet]
            yield from store(self._run, batch.snippet, waiting)

    def finish_bundle(self) -> Iterator[Any]:
        for snippet, batches in self._waiting.items():
            for batch in batches:
                value = WindowedValue(
                    (snippet.number, batch), GlobalWindow().max_timestamp(), (GlobalWindow(),)
                )
                yield beam.pvalue.TaggedOutput(REMAINDERS, value)
        self._waiting = {}


class StoreGathered(beam.DoFn):
    """Stores snippets whose batches came through a GroupByKey.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def process(self, gathered: tuple[int, Iterable[Batch]]) -> Iterator[PartRef]:
        batches = list(gathered[1])
        yield from store(self._run, batches[0].snippet, batches)


def store(run: Run, snippet: Snippet, batches: list[Batch]) -> Iterator[PartRef]:
    """Write a snippet's part and yield its reference (nothing, where a second try had no success at all)."""
    ref = parts.write_parts(run.plan, run.output, snippet, batches)
    if ref is not None:
        LOGGER.info("snippet %d is stored", snippet.number)
        yield ref


def finite_only(batch: Batch) -> Batch:
    """The batch with galaxies of NaN or infinite outputs turned into failures: they never reach a table."""
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
