"""How many CPUs this process may use: the one place that knows."""

import os
from pathlib import Path


def thread_count(threads: int) -> int:
    """The threads to use where the parameter `threads` is so many: 0 takes every CPU."""
    return threads or cpu_count()


def cpu_count(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The CPUs that affinity and the cgroup's quota allow, at least 1.

    PyTorch by itself takes every core of the node, far more than a pod's limit. Reads `cpu.max` (cgroup v2) or
    `cpu.cfs_quota_us` (cgroup v1), as the Linux kernel's admin guide describes them; a part of a CPU counts as one.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, -int(-quota // 1)))


def _quota(cgroup: Path) -> float | None:
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if limit in ("max", "-1") else int(limit) / int(period)
