"""What a reader may use: one folder, a GiB of memory, and some seconds of the CPU."""

import gc
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

MEMORY = 2**30
SECONDS = 10
PATHS = {"open": 1, "os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.symlink": 2, "os.link": 2, "os.truncate": 1}
CODE = str(Path(__file__).parents[2] / "components")
LIBRARIES = (sys.prefix, sys.base_prefix, CODE, "/sys/fs/cgroup")

_allowed: list[str] = []  # the folder, while a reader runs


class Escape(BaseException):
    """A file used outside the folder; no reader may catch it."""


class Hang(BaseException):
    """A reader that takes too long."""


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Raise Escape, MemoryError or Hang if the block uses a file outside the folder, more memory or more time."""
    _watch()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_memory() + MEMORY, hard))
    handler = signal.signal(signal.SIGVTALRM, _hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    _allowed.append(str(folder.resolve()))
    gc.disable()  # what earlier tests left may tidy up files when it is collected
    try:
        yield
    finally:
        _allowed.pop()
        gc.enable()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@cache
def _watch() -> None:
    sys.addaudithook(_audit)  # for good: Python removes none


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _allowed or event not in PATHS:
        return
    for path in arguments[: PATHS[event]]:
        is_read = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if isinstance(path, str | bytes | os.PathLike):
            found = os.path.realpath(os.fsdecode(path))
            if not found.startswith((*_allowed, *LIBRARIES) if is_read else tuple(_allowed)):
                raise Escape(f"{event} {found}")


def _hang(_: int, __: FrameType | None) -> None:
    raise Hang(f"more than {SECONDS} s")


def _memory() -> int:
    """Return the size of the process's data in bytes, as RLIMIT_DATA counts it."""
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    return int(found.split()[1]) * 1024
