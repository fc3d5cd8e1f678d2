"""Processes of this machine: one at a time where there is room for one, and none left behind by one that was killed."""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from components.shared.core.errors import UserError

# Ask Linux for a signal at the parent's death (PR_SET_PDEATHSIG) and, unless it is dead by now, become the command.
_BOUND = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
if os.getppid() == int(sys.argv[2]):
    os.execvp(sys.argv[3], sys.argv[3:])
"""


def bound(command: list[str], signal_number: int) -> list[str]:
    """The command as a child process that gets the signal when the thread that starts it dies; on Linux alone."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _BOUND, str(int(signal_number)), str(os.getpid()), *command]


@contextmanager
def hold(path: Path, remedy: str, seconds: float = 0) -> Iterator[None]:
    """Hold the lock file `path` for this process; UserError where another holds it for longer than `seconds`."""
    with open(path, "a+") as file:
        if not lock(file, seconds):
            raise UserError(f"{path.parent} is in use by process {read_pid(file) or '?'}; {remedy}")
        write_pid(file, os.getpid())
        yield


def is_held(path: Path) -> bool:
    """Whether a process that lives holds the lock file."""
    if not path.exists():
        return False
    with open(path, "a+") as file:
        return not lock(file)


def lock(file: TextIO, seconds: float = 0) -> bool:
    """Lock a file until it is closed, by the children too that inherit it; False where it stays another's."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
        time.sleep(0.02)


def read_pid(file: TextIO) -> int:
    """The process id in a lock file; 0 where there is none."""
    file.seek(0)
    return int(file.read() or 0)


def write_pid(file: TextIO, pid: int) -> None:
    """Put the id of the process that holds a lock file into it."""
    file.truncate(0)
    file.write(str(pid))
    file.flush()
