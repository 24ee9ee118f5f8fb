"""From combined records to arrays of samples, many galaxies at a time."""

import dataclasses
import functools

import numpy as np

from beam_zoo.errors import UserError
from beam_zoo.images.failure import Failure
from beam_zoo.samples import combine
from beam_zoo.samples.ensemble import DROP, KEEP, Ensemble

INCOMPLETE_STAGE = "aggregate"
# A sample that was predicted twice differs by rounding, because its galaxy was in another batch.
RELATIVE, ABSOLUTE = 1e-4, 1e-6


@dataclasses.dataclass(frozen=True)
class SampleBatch:
    """Predicted galaxies that have the same samples.

    Attributes:
        rows: rows of the tables, int64, shape (galaxy,).
        ids: their ids.
        held: the indices in `Ensemble.samples` of the samples that they have.
        samples: float32, shape (galaxy, sample, output).
    """

    rows: np.ndarray
    ids: list[str]
    held: tuple[int, ...]
    samples: np.ndarray


class SampleBatcher:
    """Takes the records of one galaxy at a time, and gives batches of galaxies that have the same samples.

    Args:
        ensemble: the samples of complete galaxies.

    Attributes:
        failures: (row, id, failure) of the galaxies so far that have no prediction.
        count: number of galaxies that the next `flush` gives.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self.failures: list[tuple[int, str, Failure]] = []
        self.count = 0
        self._ensemble = ensemble
        self._missing = functools.cache(ensemble.missing)
        # The sources of samples -> ids and sample records of the galaxies that have samples of just these.
        self._pending: dict[tuple[int, ...], tuple[list[bytes], list[bytes]]] = {}

    def add(self, galaxy: bytes, records: bytes) -> None:
        """Take a galaxy.

        Args:
            galaxy: its id.
            records: all of its records, in the order of `CombineSamples`.

        Raises:
            UserError: one run has two different records of its samples, or it lacks samples and that is
                refused.
        """
        length, kind, source, row = combine.header(records)
        sources: tuple[int, ...] = (source,)
        samples, failure = records, None
        if length != len(records) or kind != combine.SAMPLES:
            sources, samples, failure = self._split(galaxy, records)
        missing = self._missing(sources)
        if sources and (not missing or self._ensemble.incomplete == KEEP):
            if sources not in self._pending:
                self._pending[sources] = [], []
            ids, pending = self._pending[sources]
            ids.append(galaxy)
            pending.append(samples)
            self.count += 1
            return
        self.failures.append((row, galaxy.decode(), failure or self._incomplete(galaxy, missing)))

    def _split(self, galaxy: bytes, records: bytes) -> tuple[tuple[int, ...], bytes, Failure | None]:
        """The sources of a galaxy's samples, its sample records, and its first failure."""
        failure: Failure | None = None
        samples: dict[int, bytes] = {}
        for record in combine.split_records(records):
            _, kind, source, _ = combine.header(record)
            if kind == combine.FAILURE:
                failure = failure or combine.decode_failure(record)
            elif source in samples:
                where = self._ensemble.source_names[source]
                raise UserError(f"galaxy {galaxy.decode()!r} has two different sets of samples in {where}")
            else:
                samples[source] = record
        return tuple(samples), b"".join(samples.values()), failure

    def _incomplete(self, galaxy: bytes, missing: str) -> Failure:
        if self._ensemble.incomplete != DROP:
            raise UserError(f"galaxy {galaxy.decode()!r} lacks samples: {missing}")
        return Failure(0, INCOMPLETE_STAGE, f"no samples of {missing}", False)

    def flush(self) -> list[SampleBatch]:
        """The predicted galaxies that were taken since the last call.

        Raises:
            UserError: two runs hold different values of one sample.
        """
        batches = [self._batch(sources, *galaxies) for sources, galaxies in sorted(self._pending.items())]
        self._pending, self.count = {}, 0
        return batches

    def _batch(self, sources: tuple[int, ...], galaxies: list[bytes], records: list[bytes]) -> SampleBatch:
        ids, outputs = [galaxy.decode() for galaxy in galaxies], self._ensemble.outputs
        counts = [len(self._ensemble.by_source[source]) for source in sources]
        rows, flat = combine.decode_samples(records, [count * outputs for count in counts])
        arrays = [
            values.reshape(len(ids), count, outputs) for count, values in zip(counts, flat, strict=True)
        ]
        return SampleBatch(rows, ids, self._ensemble.held(sources), self._union(sources, ids, arrays))

    def _union(self, sources: tuple[int, ...], ids: list[str], arrays: list[np.ndarray]) -> np.ndarray:
        """Each sample of these runs once, in the order of the ensemble."""
        samples, by_source = self._ensemble.samples, self._ensemble.by_source
        if len(sources) == 1 and by_source[sources[0]] == self._ensemble.held(sources):
            return arrays[0]  # in order already
        union = np.zeros((len(ids), len(samples), self._ensemble.outputs), np.float32)
        first_source = np.full(len(samples), -1)
        for source, values in zip(sources, arrays, strict=True):
            indices = np.array(by_source[source], np.int64)
            again = first_source[indices] >= 0
            both = union[:, indices[again]], values[:, again]
            equal = np.isclose(*both, rtol=RELATIVE, atol=ABSOLUTE).all(-1)
            if not equal.all():
                galaxy, which = np.argwhere(~equal)[0]
                index = indices[again][which]
                member, number = samples[index]
                names = self._ensemble.source_names
                raise UserError(
                    f"galaxy {ids[galaxy]!r}, member {member}, pass {number} has different values in "
                    f"{names[first_source[index]]} and {names[source]}: leave one of them out"
                )
            union[:, indices[~again]] = values[:, ~again]
            first_source[indices[~again]] = source
        return union[:, first_source >= 0]
