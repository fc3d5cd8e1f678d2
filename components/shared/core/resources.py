"""The CPUs and the memory that this process may use, within the limits of its cgroup (see the Linux admin guide)."""

import os
from collections.abc import Sequence
from pathlib import Path

CGROUP, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/meminfo")
BATCH_PIXELS = 2**20  # of the images of a batch, in one channel


def thread_count(threads: int) -> int:
    """Return the number of threads that the parameter `threads` asks for: 0 stands for one on each CPU."""
    return threads or cpu_count()


def cpu_count(cgroup: Path = CGROUP) -> int:
    """Return the number of CPUs that affinity and the cgroup's quota allow; part of a CPU counts as one.

    PyTorch by itself takes every core of the node, far more than a pod's limit.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, -int(-quota // 1)))


def free_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Return the bytes that the machine has available and the cgroup still allows; file caches count as free."""
    available = _field(meminfo, "MemAvailable:") * 1024
    limit = _memory_limit(cgroup)
    if limit is None:
        return available
    current = int((cgroup / "memory.current").read_text())
    return max(0, min(available, limit - current + _field(cgroup / "memory.stat", "inactive_file")))


def total_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Return the bytes that the machine has, or the cgroup's limit if that is less, however much is in use."""
    total = _field(meminfo, "MemTotal:") * 1024
    limit = _memory_limit(cgroup)
    return total if limit is None else min(total, limit)


def inference_batch_size(limit: int, image_shape: Sequence[int]) -> int:
    """Return how many images of a shape (C, H, W) to predict at once: `limit`, and fewer if they are large.

    The largest layers of a network take some hundred bytes per pixel, so a batch of 2^20 pixels needs less than a GiB.
    """
    return max(1, min(limit, BATCH_PIXELS // (image_shape[1] * image_shape[2])))


def _cpu_quota(cgroup: Path) -> float | None:
    """Return the CPUs that the cgroup allows (version 2 or 1), None if it sets no limit."""
    both = _read(cgroup / "cpu.max")
    quota, period = both.split() if both else (_read(cgroup / f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return None if quota in ("", "max", "-1") else int(quota) / int(period)


def _memory_limit(cgroup: Path) -> int | None:
    """Return the bytes that the cgroup allows, None if it sets no limit or is not of version 2."""
    limit = _read(cgroup / "memory.max")
    return None if limit in ("", "max") else int(limit)


def _read(path: Path) -> str:
    """Return the content of a cgroup's file, empty if there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _field(path: Path, name: str) -> int:
    rows = (line.split() for line in path.read_text().splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)
