"""The device that encoders and views run on: what it is, what fits on it, and how images get there."""

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence

import threadpoolctl
import torch

from beam_zoo.errors import UserError
from beam_zoo.runtime.resources import cores
from beam_zoo.runtime.tuning import keep_freed_memory

THREADS = torch.get_num_threads()
"""torch's own choice for this machine, asked before any thread is kept to one core."""
WAITING_BYTES = 1 << 28
"""Of one view task of one batch; 256 images of 224 px take 37 MiB. A few batches wait."""
LOGGER = logging.getLogger("beam_zoo")
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "ALLOC_FAILED")


def usable_device(device: str, precision: str) -> str:
    """`cpu` or `cuda`, whichever `device` (auto, cpu or cuda) means on this machine; the first in a process that asks a GPU.

    Raises:
        UserError: a GPU is asked for and cannot be used, or the precision needs one.
    """
    # More of a GPU's streams take turns independently (CUDA's own is 8): its decoder has several. CUDA reads it once.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        try:
            torch.zeros(1, device="cuda")
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--device=cuda, but this machine has no usable GPU ({reason})") from None
    if precision == "tf32" and device != "cuda":
        raise UserError("--precision=tf32 is a mode of NVIDIA GPUs: use fp32 or bf16 on a CPU")
    return device


def set_up_torch(device: str, precision: str) -> str:
    """Make this process compute in a precision; the device that it computes on, `cpu` or `cuda`.

    Raises:
        UserError: the device cannot be used.
    """
    device = usable_device(device, precision)
    tf32 = precision == "tf32"
    # torch's default lets convolutions run in TF32 on a GPU: fp32 means fp32 here.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(min(THREADS, cores()))
    if device == "cpu":
        keep_freed_memory()
    return device


def one_thread() -> None:
    """In the calling thread torch computes on one core, from now on.

    For all threads but the one of the encoders. GNU's OpenMP keeps a team of threads for every thread that ever computed on
    several cores, and once there are more of them in a process than cores, none waits for its next task awake any more:
    forward passes of a few milliseconds a layer then take a fifth longer.
    """
    torch.get_num_threads()  # torch sets its own number at its first use in a thread
    threadpoolctl.threadpool_limits(1, user_api="openmp")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory is short, on a GPU or on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


class Pieces:
    """Work on some items at a time; where the device runs out of memory, on half as many from then on.

    Args:
        at_once: how many to begin with.
        whose: the member or view that needs the memory, for warnings and errors.
        items: what they are, in the plural.
        one: one of them.

    Attributes:
        at_once: how many are tried next.
    """

    def __init__(self, at_once: int, whose: str, items: str, one: str) -> None:
        self.at_once, self._whose, self._items, self._one = at_once, whose, items, one

    def work(
        self, count: int, work: Callable[[slice], torch.Tensor], most: int | None = None
    ) -> torch.Tensor:
        """The results of all pieces, joined.

        Args:
            count: how many items there are.
            work: makes the results of some of them.
            most: how many of these items may be tried at a time; None for as many as of any.

        Raises:
            UserError: not even one item fits.
        """
        done: list[torch.Tensor] = []
        start = 0
        while start < count:
            size = self.at_once if most is None else min(most, self.at_once)
            try:
                done.append(work(slice(start, start + size)))
                start += size
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # Not in the handler: there the error still holds the tensors that did not fit.
            self._halve(size)
        return done[0] if len(done) == 1 else torch.cat(done)

    def _halve(self, size: int) -> None:
        if size == 1:
            raise UserError(f"{self._whose}: {self._one} does not fit into the memory of the device")
        self.at_once = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        LOGGER.warning(
            "%s: out of memory on the device; going on with %d %s at a time",
            self._whose,
            self.at_once,
            self._items,
        )


def host_buffer(shape: tuple[int, ...], device: str) -> torch.Tensor:
    """Room for pixels, uint8: in memory from which a GPU copies while other work goes on."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device == "cuda")


def waits_on_device(shape: Sequence[int]) -> bool:
    """Whether pixels of this shape, uint8, may wait on the device for their forward pass; else they wait in `host_buffer`."""
    return math.prod(shape) <= WAITING_BYTES


def pixel_buffer(shape: tuple[int, ...], device: str) -> torch.Tensor:
    """Room for pixels, uint8, where they wait for their forward pass."""
    if waits_on_device(shape):
        return torch.empty(shape, dtype=torch.uint8, device=device)
    return host_buffer(shape, device)


class SideStream:
    """Work of a thread of its own beside the forward pass: on a GPU a stream, on a CPU nothing special.

    Args:
        device: `cpu` or `cuda`.
    """

    def __init__(self, device: str) -> None:
        # Its kernels are short, and the forward pass waits for what they make: they go first.
        self._stream = torch.cuda.Stream(priority=-1) if device == "cuda" else None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[int]:
        """CUDA's number of the stream. What is done inside is done, and may be used on any stream, when the context ends."""
        if self._stream is None:
            yield 0
            return
        try:
            with torch.cuda.stream(self._stream):
                yield self._stream.cuda_stream
        finally:
            self._stream.synchronize()


def used_here(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that was made on another stream: its memory is not given away before this stream has used it."""
    if tensor.is_cuda:
        tensor.record_stream(torch.cuda.current_stream())
    return tensor
