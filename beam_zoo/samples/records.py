"""The few records that travel between the steps of the pipeline."""

import dataclasses
import operator
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from apache_beam import coders
from apache_beam.coders.coder_impl import CallbackCoderImpl
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_zoo.images.failure import Failure
from beam_zoo.plan.snippet import Snippet

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass
class Batch:
    """Galaxies of one snippet that go through the members together, and those that failed on the way.

    Attributes:
        snippet: the snippet that they belong to.
        offsets: row within the snippet of every galaxy, shape (galaxy,).
        galaxy_keys: 64-bit key of every galaxy's id, uint64, shape (galaxy,); random draws start there.
        pixels: per view task, uint8 of shape (galaxy, view, channel, height, width), on the device.
        outputs: per member, float32 of shape (galaxy, pass, answer), or (galaxy, feature): on the device, where they may
            not be computed yet, until `on_host`.
        failures: the galaxies of this batch that are not among `offsets` any more.
    """

    snippet: Snippet
    offsets: np.ndarray
    galaxy_keys: np.ndarray
    pixels: "dict[str, torch.Tensor]"
    outputs: "Mapping[str, torch.Tensor | np.ndarray]"
    failures: list[Failure]

    def __len__(self) -> int:
        return len(self.offsets)

    def on_host(self) -> "Batch":
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


class BatchCoder(coders.Coder):
    """Pickle; but Beam, which asks for the size of some elements after every step, need not pickle them for that.

    On a GPU it would wait there for all that is under way, and copy it.
    """

    def _create_impl(self) -> CallbackCoderImpl:
        return CallbackCoderImpl(pickle.dumps, pickle.loads, operator.attrgetter("nbytes"))

    def is_deterministic(self) -> bool:
        """Batches are no keys."""
        return False

    def to_type_hint(self) -> type[Batch]:
        """What it encodes."""
        return Batch


coders.registry.register_coder(Batch, BatchCoder)


@dataclasses.dataclass(frozen=True)
class PartRef:
    """Where a stored snippet is: all that travels on after its samples have been written.

    Attributes:
        snippet: the snippet's number.
        name: file name of the part within its folder.
    """

    snippet: int
    name: str


def in_global_window(value: Any) -> WindowedValue:
    """What a step sends on when its bundle ends."""
    return WindowedValue(value, GlobalWindow().max_timestamp(), (GlobalWindow(),))
