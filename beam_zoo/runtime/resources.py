"""The cores and the memory that this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def cores(root: Path = _ROOT) -> int:
    """The number of cores that this process may use.

    OMP_NUM_THREADS if it is set, else the minimum of the affinity mask, the CPU quotas of the process's
    cgroups (v2 `cpu.max`, v1 `cpu.cfs_quota_us`) and SLURM_CPUS_ON_NODE.

    Args:
        root: where `/proc` and `/sys` are.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    found = [float(len(os.sched_getaffinity(0))), *_quotas(root)]
    slurm = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if slurm.isdecimal() and int(slurm):
        found.append(int(slurm))
    return max(1, math.ceil(min(found)))


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that this process may still allocate: the minimum over the machine and the process's cgroups.

    Args:
        root: where `/proc` and `/sys` are.
    """
    lines = (root / "proc/meminfo").read_text().splitlines()
    found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for folder in _cgroups(root, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            found.append(max(0, limit - used + _file_cache(folder)))
    return min(found)


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas in cores, of the process's cgroup and its parents."""
    for folder in _cgroups(root, "cpu"):
        text = _text(folder / "cpu.max").split()
        if len(text) == 2 and text[0].isdecimal():
            yield int(text[0]) / int(text[1])
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period and quota > 0:  # -1: no quota
            yield quota / period


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's cgroup and its parents, of version 2 and of a controller of version 1."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for top in ("sys/fs/cgroup", f"sys/fs/cgroup/{controller}") if controllers else ("sys/fs/cgroup",):
            base = root / top
            # In a container the path may be that of the host: then only the top folder exists.
            folder = base / path.lstrip("/")
            for each in (folder, *folder.parents):
                if each.is_relative_to(base):
                    yield each


def _file_cache(folder: Path) -> int:
    """Bytes of the file cache that the kernel reclaims when memory is needed."""
    values = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
    return int(values.get("total_inactive_file") or values.get("inactive_file") or 0)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """The number in a file; None for `max`, or if there is no file."""
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdecimal() else None
