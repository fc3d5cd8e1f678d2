"""How much memory this process may still take."""

from pathlib import Path


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


def _field(path: Path, name: str) -> int:
    rows = (line.split() for line in path.read_text().splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)
