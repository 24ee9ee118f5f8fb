"""Process-wide settings. Commands and workers change them; library functions restore their caller's."""

import contextlib
import ctypes
import gc
import logging
import warnings
from collections.abc import Iterator
from typing import Any

_KEEP = {-1: 1 << 30, -2: 1 << 28, -3: 1 << 30, -8: 1}
"""Parameters of glibc's mallopt: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD (bytes) and M_ARENA_MAX."""
_ours = True


def is_ours() -> bool:
    """Whether this process is a command or a worker, whose settings may be changed."""
    return _ours


@contextlib.contextmanager
def callers_process() -> Iterator[None]:
    """A context for library functions: `is_ours` is false, and changed settings are restored at its end.

    These are torch's global generator, number of threads and TF32 flags, the OpenMP threads of the calling
    thread, and the level and handlers of the root logger.
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
    """Make glibc, if the process uses it, keep freed memory for later allocations.

    By default glibc returns large blocks to the system, and new ones cost thousands of page faults. Without
    these, eager forward passes of convnext_nano on a CPU are 1.2 to 1.4 times as fast, and tables of 34
    answers are built a tenth faster. To be called before other threads start: they then share the main arena,
    whose blocks have no limit of size.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if _ours and mallopt is not None:
        for parameter, value in _KEEP.items():
            if not mallopt(parameter, value):  # older versions allow 32 MiB at most
                mallopt(parameter, 1 << 25)


def freeze_modules() -> None:
    """Exclude the objects that exist by now, mostly imported modules, from garbage collection."""
    if _ours:
        gc.freeze()
