"""The processes of the steps of local runs, for tests that kill them and wait for their end (on Linux)."""

from contextlib import suppress
from pathlib import Path

from components.step_table import STEPS

LONGEST = 15  # of the name of a process


def step_processes(runs: Path, step: str = "") -> list[int]:
    """Return the processes of a step, or of any, of the runs in a folder."""
    names = [step] if step else [step.name for step in STEPS]
    wanted = {name.replace("-", "_")[:LONGEST] for name in names}
    return [int(path.name) for path in _processes_of(runs) if _name(path) in wanted]


def has_processes(runs: Path) -> bool:
    """Return whether a process of the runs in a folder, or of their S3 server, still runs."""
    return bool(_processes_of(runs))


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:  # the process has ended meanwhile
        return ""


def _processes_of(runs: Path) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or is another user's
            if str(runs).encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append(process)
    return found
