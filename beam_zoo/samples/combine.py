"""CombinePerKey over a galaxy's records: the samples, or the failure, that each stored part has of it.

A record is bytes: a header, then the float32 samples, member by member and pass by pass, or the reason of the
failure as JSON. An accumulator is the concatenation of records.
"""

import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from beam_zoo.images.failure import Failure

SAMPLES, FAILURE = 0, 1
# The format lies in working files of `aggregate`, never in an output.
HEADER = np.dtype([("length", "<u4"), ("kind", "<u2"), ("source", "<u2"), ("row", "<i8")])
_HEADER = struct.Struct("<IHHq")
assert _HEADER.size == HEADER.itemsize


def sample_records(rows: np.ndarray, samples: np.ndarray, source: int = 0) -> list[bytes]:
    """Encode the samples of galaxies.

    Args:
        rows: rows of the tables, int64, shape (galaxy,).
        samples: float32, shape (galaxy, values): member, pass and answer flattened in that order.
        source: number of the run that the samples are of; 0 where there is one run.

    Returns:
        A record for each galaxy.
    """
    records = np.empty(len(rows), _sample_record(samples.shape[1]))
    size = records.itemsize
    records["length"], records["kind"], records["source"], records["row"] = size, SAMPLES, source, rows
    records["samples"] = samples
    return records.view(f"V{size}").tolist()


def _sample_record(values: int) -> np.dtype:
    return np.dtype([*HEADER.descr, ("samples", "<f4", (values,))])


def failure_record(row: int, failure: Failure, source: int = 0, attempt: int = 0) -> bytes:
    """Encode the failure of a galaxy; `attempt` is 0 in a snippet's first part, 1, 2, ... in an added one."""
    text = json.dumps([failure.offset, failure.stage, failure.error, failure.may_pass, attempt]).encode()
    return _HEADER.pack(_HEADER.size + len(text), FAILURE, source, row) + text


def decode_failure(record: bytes) -> Failure:
    """The inverse of `failure_record`."""
    return Failure(*json.loads(record[_HEADER.size :])[:4])


def header(records: bytes) -> tuple[int, int, int, int]:
    """(length, kind, source, row) of the first record."""
    length, kind, source, row = _HEADER.unpack_from(records)
    return length, kind, source, row


def split_records(records: bytes) -> list[bytes]:
    """The single records of a concatenation."""
    found, start = [], 0
    while start < len(records):
        end = start + _HEADER.unpack_from(records, start)[0]
        found.append(records[start:end])
        start = end
    return found


def decode_samples(galaxies: Sequence[bytes], values: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The samples of many galaxies that have records of the same sources.

    Args:
        galaxies: of each galaxy the concatenation of its sample records.
        values: the number of values in each of these records.

    Returns:
        Rows, int64, shape (galaxy,), and for each record float32 of shape (galaxy, values).
    """
    kind = np.dtype([(str(index), _sample_record(count)) for index, count in enumerate(values)])
    read = np.frombuffer(b"".join(galaxies), kind)
    return read["0"]["row"], [read[name]["samples"] for name in kind.names or ()]


class CombineSamples(beam.CombineFn):
    """Collects the records of a galaxy, each once.

    It is associative and commutative: accumulators are concatenated in any order, and only the output is
    sorted (samples before failures, then by source; of failures the last attempt first).
    """

    def create_accumulator(self) -> bytes:
        return b""

    def add_input(self, accumulator: bytes, element: bytes) -> bytes:
        return accumulator + element if accumulator else element

    def merge_accumulators(self, accumulators: Iterable[bytes]) -> bytes:
        return b"".join(accumulators)

    def extract_output(self, accumulator: bytes) -> bytes:
        if accumulator and _HEADER.unpack_from(accumulator)[0] == len(accumulator):
            return accumulator  # one record, as nearly all galaxies have
        ordered: list[bytes] = sorted(set(split_records(accumulator)), key=_order)
        return b"".join(ordered)

    def apply(self, elements: Iterable[bytes], *args: Any, **kwargs: Any) -> bytes:
        return self.extract_output(self.merge_accumulators(elements))

    def get_accumulator_coder(self) -> beam.coders.Coder:
        return beam.coders.BytesCoder()


def _order(record: bytes) -> tuple[int, int, int, bytes]:
    _, kind, source, _ = header(record)
    attempt = json.loads(record[_HEADER.size :])[4] if kind == FAILURE else 0
    return kind, source, -attempt, record
