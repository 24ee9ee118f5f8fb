"""The device of encoders and views: which one, how many images fit on it, and how they are copied there."""

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
"""torch's default for this machine, read before `one_thread` changes it."""
WAITING_BYTES = 1 << 28
"""Most bytes of one view of one batch that wait on the device; 256 images of 224 px take 37 MiB."""
LOGGER = logging.getLogger("beam_zoo")
_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "ALLOC_FAILED")


def usable_device(device: str, precision: str) -> str:
    """The device, `cpu` or `cuda`, that `device` (auto, cpu or cuda) means on this machine.

    To be called before CUDA is used in a process.

    Raises:
        UserError: a GPU is asked for and cannot be used, or the precision needs one.
    """
    # CUDA reads this once. With more connections (default 8) the streams of the JPEG decoder do not share
    # any.
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
    """Set torch's threads and precision in this process; returns the device, `cpu` or `cuda`.

    Raises:
        UserError: the device cannot be used.
    """
    device = usable_device(device, precision)
    tf32 = precision == "tf32"
    # By default torch uses TF32 for convolutions on a GPU.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(min(THREADS, cores()))
    if device == "cpu":
        keep_freed_memory()
    return device


def one_thread() -> None:
    """Limit torch to one core in the calling thread. For all threads but that of the encoders.

    GNU's OpenMP keeps a team of threads for every thread that has computed on several cores. If a process has
    more of them than cores, they stop spinning between tasks, and a forward pass on a CPU takes a fifth
    longer.
    """
    torch.get_num_threads()  # at its first use in a thread torch sets the number
    threadpoolctl.threadpool_limits(1, user_api="openmp")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that memory is short, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


class AdaptiveBatches:
    """Processes items in batches; if the device runs out of memory, in batches of half the size from then on.

    Args:
        at_once: size of a batch at first.
        whose: the member or view that needs the memory, for messages.
        items: name of the items in the plural, for messages.
        one: the same for one item.

    Attributes:
        at_once: size of the next batch.
    """

    def __init__(self, at_once: int, whose: str, items: str, one: str) -> None:
        self.at_once, self._whose, self._items, self._one = at_once, whose, items, one

    def work(
        self, count: int, work: Callable[[slice], torch.Tensor], most: int | None = None
    ) -> torch.Tensor:
        """The results of all batches, concatenated.

        Args:
            count: number of items.
            work: returns the results of a slice of them.
            most: limit of the size of a batch for these items, or None.

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
            # Not in the except clause: there the traceback still references tensors.
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
    """An empty uint8 tensor in host memory; pinned if the device is a GPU."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device == "cuda")


def waits_on_device(shape: Sequence[int]) -> bool:
    """Whether pixels of this shape wait on the device for their forward pass, or else in `host_buffer`."""
    return math.prod(shape) <= WAITING_BYTES


def pixel_buffer(shape: tuple[int, ...], device: str) -> torch.Tensor:
    """An empty uint8 tensor for pixels that wait for their forward pass."""
    if waits_on_device(shape):
        return torch.empty(shape, dtype=torch.uint8, device=device)
    return host_buffer(shape, device)


class SideStream:
    """A CUDA stream for work beside the forward pass; on a CPU it does nothing.

    Args:
        device: `cpu` or `cuda`.
    """

    def __init__(self, device: str) -> None:
        # High priority: its kernels are short, and the next forward pass waits for them.
        self._stream = torch.cuda.Stream(priority=-1) if device == "cuda" else None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[int]:
        """A context whose work is on this stream, and complete at its end; yields CUDA's stream handle."""
        if self._stream is None:
            yield 0
            return
        try:
            with torch.cuda.stream(self._stream):
                yield self._stream.cuda_stream
        finally:
            self._stream.synchronize()


def used_here(tensor: torch.Tensor) -> torch.Tensor:
    """Mark a tensor of another stream as used by the current one: its memory is not reused before."""
    if tensor.is_cuda:
        tensor.record_stream(torch.cuda.current_stream())
    return tensor
