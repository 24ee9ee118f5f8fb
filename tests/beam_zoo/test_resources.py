"""Cores and memory that a process may use, in cgroups of both versions."""

import math
import os
from pathlib import Path

import pytest

from beam_zoo.runtime import resources


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine of 64 cores and 64 GB: files below its root."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))

    def make(cgroup: str, files: dict[str, str]) -> Path:
        for name, text in {"proc/self/cgroup": cgroup, "proc/meminfo": MEMORY, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


MEMORY = "MemTotal:       67108864 kB\nMemFree:  1 kB\nMemAvailable:   62500000 kB\n"


def test_without_a_quota(machine):
    root = machine("0::/user.slice\n", {"sys/fs/cgroup/user.slice/cpu.max": "max 100000\n"})
    assert resources.cores(root) == 64
    assert resources.available_memory(root) == 64_000_000_000


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("250000 100000", 3), ("200000 100000", 2), ("10000 100000", 1), ("max 100000", 64)],
)
def test_a_quota(machine, quota, expected):
    root = machine("0::/docker/abc\n", {"sys/fs/cgroup/docker/abc/cpu.max": f"{quota}\n"})
    assert resources.cores(root) == expected


def test_a_quota_of_a_cgroup_above(machine):
    files = {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "400000 100000\n"}
    assert resources.cores(machine("0::/a/b\n", files)) == 4


def test_a_namespace_of_its_own(machine):
    """A container sees its own cgroup as the top."""
    assert resources.cores(machine("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"})) == 2


def test_version_1(machine):
    cgroup = "4:memory:/m\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n"
    files = {
        "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "3000000000\n",
        "sys/fs/cgroup/memory/m/memory.usage_in_bytes": "1000000000\n",
    }
    root = machine(cgroup, files)
    assert resources.cores(root) == 3
    assert resources.available_memory(root) == 2_000_000_000


def test_a_memory_limit(machine):
    files = {"sys/fs/cgroup/a/memory.max": "5000\n", "sys/fs/cgroup/a/memory.current": "2000\n"}
    assert resources.available_memory(machine("0::/a\n", files)) == 3000
    files["sys/fs/cgroup/a/memory.stat"] = "anon 1\ninactive_file 500\n"
    assert resources.available_memory(machine("0::/a\n", files)) == 3500
    files = {"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/memory.max": "9000\n"}
    files["sys/fs/cgroup/memory.current"] = "9500\n"
    assert resources.available_memory(machine("0::/a\n", files)) == 0


def test_what_was_asked_for(machine, monkeypatch):
    root = machine("0::/\n", {"sys/fs/cgroup/cpu.max": "800000 100000\n"})
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert resources.cores(root) == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert resources.cores(root) == 2


def test_this_machine():
    assert 1 <= resources.cores() <= max(1, math.ceil(os.cpu_count() or 1)) or os.environ.get(
        "OMP_NUM_THREADS"
    )
    assert resources.available_memory() > 1 << 20
