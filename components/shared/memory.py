"""How much memory this process may still take, and what it does with what it frees."""

import ctypes
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MOST = 2**31 - 1


def free_memory(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that the machine has available and the cgroup's limit leaves, file caches counted as free.

    Reads `memory.max`, `memory.current` and `memory.stat` of cgroup v2, see the Linux kernel's admin guide.
    """
    available = _field(meminfo, "MemAvailable:") * 1024
    try:
        limit, current = ((cgroup / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return available
    if limit == "max":
        return available
    return max(0, min(available, int(limit) - int(current) + _field(cgroup / "memory.stat", "inactive_file")))


def keep_freed_memory() -> None:
    """Have glibc's malloc keep what is freed for what is asked for next (mallopt(3)); other C libraries do as they do.

    It gives each large block back at once, and a step of a training asks for the same blocks as the one before: the
    kernel would clear their pages anew each time, which takes a third of LeNet-5's time, and half of MobileNetV2's. The
    most that a process takes stays the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, MOST)
        mallopt(M_MMAP_MAX, 0)


def _field(path: Path, name: str) -> int:
    rows = (line.split() for line in path.read_text().splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)
