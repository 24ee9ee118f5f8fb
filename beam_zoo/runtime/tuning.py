"""Settings of the process. A command or a worker tunes its own; a library leaves its caller's as it found it."""

import contextlib
import ctypes
import gc
import logging
import warnings
from collections.abc import Iterator
from typing import Any

_KEEP = {-1: 1 << 30, -2: 1 << 28, -3: 1 << 30, -8: 1}
"""glibc's M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD (bytes) and M_ARENA_MAX."""
_ours = True


def is_ours() -> bool:
    """Whether this process is a command's or a worker's: it may be tuned."""
    return _ours


@contextlib.contextmanager
def callers_process() -> Iterator[None]:
    """Inside, the process is a caller's: nothing tunes it, and what torch must have set is put back at the end.

    That is its global generator, its number of threads, its TF32 flags, and the OpenMP threads of the calling thread; and the
    root logger's level and handlers.
    """
    global _ours
    import threadpoolctl
    import torch

    flags: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = torch.get_rng_state(), torch.get_num_threads(), [each.allow_tf32 for each in flags]
    pools = threadpoolctl.ThreadpoolController().select(user_api="openmp").lib_controllers
    threads = [pool.num_threads for pool in pools]
    root = logging.getLogger()
    logs = root.level, [*root.handlers]  # libraries add a handler when they log the first line
    was_ours, _ours = _ours, False
    try:
        with warnings.catch_warnings():
            yield
    finally:
        _ours = was_ours
        root.setLevel(logs[0])
        root.handlers[:] = logs[1]
        torch.set_rng_state(before[0])
        torch.set_num_threads(before[1])
        for each, allowed in zip(flags, before[2], strict=True):
            each.allow_tf32 = allowed
        for pool, number in zip(pools, threads, strict=True):
            pool.set_num_threads(number)


def keep_freed_memory() -> None:
    """Have glibc, where this process has it, keep freed memory for later allocations.

    By default glibc gives large blocks back to the system, and new ones cost thousands of page faults: without them, eager
    forward passes of convnext_nano on a CPU are 1.2 to 1.4 times as fast, and tables of 34 answers are built a tenth faster.
    Called before other threads start, it has them share one arena, which has no limit to its blocks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if _ours and mallopt is not None:
        for parameter, value in _KEEP.items():
            if not mallopt(parameter, value):  # an older glibc takes 32 MiB at most
                mallopt(parameter, 1 << 25)


def freeze_modules() -> None:
    """Have the garbage collector leave alone what exists by now, which is what was imported."""
    if _ours:
        gc.freeze()
