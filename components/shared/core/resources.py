"""The CPUs and the memory that this process may use, within the limits of its cgroup (see the Linux admin guide)."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CGROUP, MEMINFO, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/meminfo"), Path("/proc/self/cgroup")
STATM = Path("/proc/self/statm")
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


def free_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO, own: Path = OWN_CGROUP) -> int:
    """Return the bytes that the machine has available and the cgroups still allow; file caches count as free."""
    available = _field(meminfo, "MemAvailable:") * 1024
    return max(0, min([available, *(group.free() for group in _limited(cgroup, own))]))


def total_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO, own: Path = OWN_CGROUP) -> int:
    """Return the bytes that the machine has, or the cgroups' limit if that is less, however much is in use."""
    total = _field(meminfo, "MemTotal:") * 1024
    return min([total, *(group.limit for group in _limited(cgroup, own))])


def resident_memory(statm: Path = STATM) -> int:
    """Return the bytes of memory that this process occupies."""
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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


class _Version(NamedTuple):
    """How a version of cgroups names what limits memory."""

    hierarchy: str  # the folder of its groups, and the name of its controller
    limit: str
    current: str
    file_caches: str  # in memory.stat, those that the kernel may take back


VERSIONS = (
    _Version("", "memory.max", "memory.current", "inactive_file"),
    _Version("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class _Limited(NamedTuple):
    """A cgroup that limits memory."""

    folder: Path
    version: _Version
    limit: int

    def free(self) -> int:
        """Return the bytes that may still be used."""
        current = int((self.folder / self.version.current).read_text())
        return self.limit - current + _field(self.folder / "memory.stat", self.version.file_caches)


def _limited(cgroup: Path, own: Path) -> Iterator[_Limited]:
    """Yield the group of this process and those around it that limit memory, of version 2 or 1."""
    for version in VERSIONS:
        root = cgroup / version.hierarchy
        folder = root / _own_group(own, version.hierarchy)
        for group in (folder, *folder.parents) if folder.is_dir() else (root,):
            limit = _read(group / version.limit)
            if limit not in ("", "max"):
                yield _Limited(group, version, int(limit))
            if group == root:
                break


def _own_group(own: Path, controller: str) -> str:
    """Return the path of the group of this process; in a container it may be one that is not to be seen there."""
    rows = (line.split(":", 2) for line in _read(own).splitlines())
    path = next((path for _, names, path in rows if controller in names.split(",")), "/")
    return "" if ".." in path else path.lstrip("/")


def _read(path: Path) -> str:
    """Return the content of a cgroup's file, empty if there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _field(path: Path, name: str) -> int:
    rows = (line.split() for line in path.read_text().splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)
