"""The processes of the steps of local runs, for tests that kill them and wait for their end (on Linux)."""

import os
from contextlib import suppress
from pathlib import Path

from components.step_table import STEPS

LONGEST = 15  # of the name of a process


def step_processes(runs: Path, step: str = "") -> list[int]:
    """Return the processes of a step, or of any, of the runs in a folder."""
    names = [step] if step else [step.name for step in STEPS]
    wanted = {name.replace("-", "_")[:LONGEST] for name in names}
    return [int(path.name) for path in processes_of(runs) if _name(path) in wanted]


def has_processes(runs: Path) -> bool:
    """Return whether a process of the runs in a folder, or of their S3 server, still runs."""
    return bool(processes_of(runs))


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:  # the process has ended meanwhile
        return ""


def processes_of(runs: Path) -> list[Path]:
    """Return the folders in /proc of the processes of the runs in a folder, and of their S3 server."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or is another user's
            if str(runs).encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append(process)
    return found


def doors_of(pid: int) -> set[str]:
    """Return the ports and the paths of the Unix sockets at which a process listens."""
    inodes = _sockets(pid)
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    paths = {row[7] for row in rows if row[6] in inodes and row[3] == "00010000"}  # of those that accept connections
    return {str(int(address.split(":")[1], 16)) for address in listening(pid)} | paths


def _sockets(pid: int) -> set[str]:
    return {os.readlink(fd)[8:-1] for fd in Path(f"/proc/{pid}/fd").iterdir() if "socket:" in os.readlink(fd)}


def listening(pid: int) -> set[str]:
    """Return the addresses, as host:port in hexadecimal digits, at which a process listens."""
    inodes = _sockets(pid)
    rows = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}
