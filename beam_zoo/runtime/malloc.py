"""What a process frees, it keeps for itself."""

import ctypes

_KEEP = {-1: 1 << 30, -2: 1 << 28, -3: 1 << 30, -8: 1}
"""glibc's M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD (bytes) and M_ARENA_MAX."""


def keep_freed_memory() -> None:
    """Have glibc, where this process has it, keep what is freed for what is allocated next.

    By default it gives large blocks back to the system, and what comes in their place costs thousands of page faults: eager
    forward passes of convnext_nano on a CPU are 1.2 to 1.4 times as fast without them, tables of 34 answers built a tenth
    faster. Called before other threads start, it has them share one arena, which has no limit to its blocks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _KEEP.items():
            if not mallopt(parameter, value):  # an older glibc takes 32 MiB at most
                mallopt(parameter, 1 << 25)
