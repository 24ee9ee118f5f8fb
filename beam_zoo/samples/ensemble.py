"""The union of a galaxy's samples: what CombinePerKey gathers, in any order.

A galaxy's samples travel as one frame of bytes per stored part that has them: a header and the float32
samples, member by member and pass by pass, or the reason of a failure. An accumulator is a run of frames.
"""

import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from beam_zoo.images.failure import Failure

SAMPLES, FAILURE = 0, 1
HEADER = np.dtype([("length", "<u4"), ("kind", "<u2"), ("layout", "<u2"), ("row", "<i8")])
_UNPACK = struct.Struct("<IHHq")
assert _UNPACK.size == HEADER.itemsize


def sample_frames(rows: np.ndarray, samples: np.ndarray, layout: int = 0) -> list[bytes]:
    """One frame for every galaxy.

    Args:
        rows: catalogue rows, int64, shape (galaxy,).
        samples: float32, shape (galaxy, values): member, pass and answer flattened in that order.
        layout: which members and passes these are (one layout per source of parts).
    """
    frames = np.empty(len(rows), _sample_frame(samples.shape[1]))
    width = frames.itemsize
    frames["length"], frames["kind"], frames["layout"], frames["row"] = width, SAMPLES, layout, rows
    frames["samples"] = samples
    return frames.view(f"V{width}").tolist()


def _sample_frame(values: int) -> np.dtype:
    return np.dtype([*HEADER.descr, ("samples", "<f4", (values,))])


def failure_frame(row: int, failure: Failure, layout: int = 0, attempt: int = 0) -> bytes:
    """The frame of a galaxy that failed, in a snippet's first part or in an added one (attempt 1, 2, ...)."""
    text = json.dumps([failure.offset, failure.stage, failure.error, failure.may_pass, attempt]).encode()
    return _UNPACK.pack(_UNPACK.size + len(text), FAILURE, layout, row) + text


def read_failure(frame: bytes) -> Failure:
    """The inverse of `failure_frame`."""
    return Failure(*json.loads(frame[_UNPACK.size :])[:4])


def header(frame: bytes) -> tuple[int, int, int, int]:
    """(length, kind, layout, row) of a frame."""
    length, kind, layout, row = _UNPACK.unpack_from(frame)
    return length, kind, layout, row


def split(frames: bytes) -> list[bytes]:
    """The single frames of a run of frames."""
    found, start = [], 0
    while start < len(frames):
        end = start + _UNPACK.unpack_from(frames, start)[0]
        found.append(frames[start:end])
        start = end
    return found


class Ensemble(beam.CombineFn):
    """Gathers a galaxy's frames: every frame once, in an order that does not depend on their arrival.

    Associative and commutative: accumulators are joined as they come, and only the output is put in order
    (samples before failures, by layout, the last attempt's failure first).
    """

    def create_accumulator(self) -> bytes:
        return b""

    def add_input(self, accumulator: bytes, element: bytes) -> bytes:
        return accumulator + element if accumulator else element

    def merge_accumulators(self, accumulators: Iterable[bytes]) -> bytes:
        return b"".join(accumulators)

    def compact(self, accumulator: bytes) -> bytes:
        return accumulator

    def extract_output(self, accumulator: bytes) -> bytes:
        if accumulator and _UNPACK.unpack_from(accumulator)[0] == len(accumulator):
            return accumulator  # one frame, as nearly all are
        ordered: list[bytes] = sorted(set(split(accumulator)), key=_order)
        return b"".join(ordered)

    def apply(self, elements: Iterable[bytes], *args: Any, **kwargs: Any) -> bytes:
        return self.extract_output(self.merge_accumulators(elements))

    def get_accumulator_coder(self) -> beam.coders.Coder:
        return beam.coders.BytesCoder()


def _order(frame: bytes) -> tuple[int, int, int, bytes]:
    _, kind, layout, _ = header(frame)
    attempt = json.loads(frame[_UNPACK.size :])[4] if kind == FAILURE else 0
    return kind, layout, -attempt, frame


def stack(galaxies: Sequence[bytes], values: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The samples of many galaxies.

    Args:
        galaxies: of each a run of frames of samples, alike in all of them.
        values: how many values each frame of the run has.

    Returns:
        Rows, int64, shape (galaxy,), and for each frame of the run float32 of shape (galaxy, values).
    """
    run = np.dtype([(str(index), _sample_frame(count)) for index, count in enumerate(values)])
    read = np.frombuffer(b"".join(galaxies), run)
    return read["0"]["row"], [read[name]["samples"] for name in run.names or ()]
