"""The elements that the pipeline's steps pass on."""

import dataclasses
import operator
import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from apache_beam import coders
from apache_beam.coders.coder_impl import CallbackCoderImpl
from apache_beam.transforms.window import BoundedWindow, GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo.images.failure import Failure
from beam_zoo.plan.snippet import Snippet

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass
class Batch:
    """Galaxies that the members predict together, and those that failed before or there.

    Attributes:
        offsets: number of every galaxy among those of its snippet, or of its `rows`; shape (galaxy,).
        galaxy_keys: 64-bit key of every galaxy's id, uint64, shape (galaxy,); seeds its random draws.
        pixels: per view task, uint8 of shape (galaxy, view, channel, height, width), on the device.
        outputs: per member, float32 of shape (galaxy, pass, answer), or (galaxy, feature); until `on_host`
            they are on the device, where their computation may not be complete.
        failures: the galaxies of this batch that failed; they are not among `offsets`.
    """

    offsets: np.ndarray
    galaxy_keys: np.ndarray
    pixels: "dict[str, torch.Tensor]"
    outputs: "Mapping[str, torch.Tensor | np.ndarray]"
    failures: list[Failure]

    def __len__(self) -> int:
        return len(self.offsets)

    def on_host(self) -> Self:
        """The batch with its outputs as NumPy arrays; waits until they are computed."""
        outputs = {
            name: values if isinstance(values, np.ndarray) else values.cpu().numpy()
            for name, values in self.outputs.items()
        }
        return dataclasses.replace(self, outputs=outputs)

    @property
    def nbytes(self) -> int:
        """Bytes of pixels that the batch holds."""
        return sum(array.nbytes for array in self.pixels.values())


@dataclasses.dataclass
class SnippetBatch(Batch):
    """A batch of galaxies of one snippet.

    Attributes:
        snippet: the snippet.
    """

    snippet: Snippet


@dataclasses.dataclass(frozen=True)
class Row:
    """An element of somebody's pipeline: a galaxy.

    Attributes:
        values: its `id_str`, its `file_loc` or None, and what is carried.
        timestamp: of the element.
    """

    values: Mapping[str, Any]
    timestamp: Timestamp


@dataclasses.dataclass
class RowBatch(Batch):
    """A batch of galaxies of somebody's pipeline, all in one window.

    Attributes:
        rows: all of them, also those that failed.
        window: their window.
    """

    rows: Sequence[Row]
    window: BoundedWindow


class BatchCoder(coders.Coder):
    """Pickle, with a size that is known without it.

    Beam asks for the size of some elements after every step. Pickling a batch for that would wait for
    everything in flight on a GPU, and copy it.
    """

    def _create_impl(self) -> CallbackCoderImpl:
        return CallbackCoderImpl(pickle.dumps, pickle.loads, operator.attrgetter("nbytes"))

    def is_deterministic(self) -> bool:
        """No: batches are never keys."""
        return False

    def to_type_hint(self) -> type[Batch]:
        """The type that it encodes."""
        return Batch


coders.registry.register_coder(SnippetBatch, BatchCoder)
coders.registry.register_coder(RowBatch, BatchCoder)


@dataclasses.dataclass(frozen=True)
class PartRef:
    """A reference to a stored part: all that is passed on once its samples are written.

    Attributes:
        snippet: the snippet's number.
        name: file name of the part within its folder.
    """

    snippet: int
    name: str


def in_global_window(value: Any) -> WindowedValue:
    """An element as `finish_bundle` must emit it: with a window, here the global one."""
    return WindowedValue(value, GlobalWindow().max_timestamp(), (GlobalWindow(),))
