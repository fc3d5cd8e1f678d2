"""How much memory this process may take, and how many images at once take little of it."""

from collections.abc import Sequence
from pathlib import Path

CGROUP, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/meminfo")
PIXELS = 2**20  # of the images of a batch, in one channel


def free_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Bytes that the machine has available and the cgroup's limit leaves, file caches counted as free.

    Reads `memory.max`, `memory.current` and `memory.stat` of cgroup v2, see the Linux kernel's admin guide.
    """
    available = _field(meminfo, "MemAvailable:") * 1024
    limit = _limit(cgroup)
    if limit is None:
        return available
    current = int((cgroup / "memory.current").read_text())
    return max(0, min(available, limit - current + _field(cgroup / "memory.stat", "inactive_file")))


def total_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Bytes that the machine has or, where that is less, the cgroup's limit, whatever is in use."""
    total = _field(meminfo, "MemTotal:") * 1024
    limit = _limit(cgroup)
    return total if limit is None else min(total, limit)


def images_at_once(most: int, image_shape: Sequence[int]) -> int:
    """How many images of a shape (C, H, W) a network looks at at once, without learning: `most` where they are small.

    A network's own largest layers take some hundred bytes for each pixel, which for a batch of 2^20 pixels is less than
    a GiB.
    """
    return max(1, min(most, PIXELS // (image_shape[1] * image_shape[2])))


def _limit(cgroup: Path) -> int | None:
    """The bytes that the cgroup may take; None where it has no limit, or is none of version 2."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
    except OSError:
        return None
    return None if limit == "max" else int(limit)


def _field(path: Path, name: str) -> int:
    rows = (line.split() for line in path.read_text().splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)
