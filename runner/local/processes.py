"""Processes of this machine: locks so that one runs at a time, and ends of child processes with their parent."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TextIO

from components.shared.core.errors import UserError

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # of prctl(2)
MAX_DIGITS = 8  # of a process id

# Ask Linux for a signal at the parent's death (PR_SET_PDEATHSIG) and, unless it is already dead, become the command.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]))
if os.getppid() == int(sys.argv[2]):
    os.execvp(sys.argv[3], sys.argv[3:])
"""


def die_with_parent(command: list[str], signal_number: int) -> list[str]:
    """Return the command as one that gets the signal when the thread that starts it dies (on Linux only)."""
    if sys.platform != "linux":
        return command
    script = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT]
    return [*script, str(int(signal_number)), str(os.getpid()), *command]


def end_with_parent(parent: int, signal_number: int) -> None:
    """Let Linux send this process the signal when its parent, which has that id, dies; exit if it is already dead."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal_number))
    if os.getppid() != parent:
        sys.exit(1)


def name_process(name: str) -> None:
    """Set the name that top and ps show of this process on Linux: at most 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())


class Child(Protocol):
    """A child process that leads a group of its own."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended. Raises subprocess.TimeoutExpired."""


@contextmanager
def kill_on_error(child: Child) -> Iterator[None]:
    """End a child and its children if the block raises, Ctrl-C included: first by SIGINT, so that it can tidy up."""
    try:
        yield
    except BaseException:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(child.pid, signal.SIGINT)
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
        raise


@contextmanager
def lock_file(path: Path, remedy: str, seconds: float = 0) -> Iterator[None]:
    """Lock the file `path` for this process. Raises UserError if another one keeps it for longer than `seconds`."""
    with open(path, "a+") as file:
        if not lock(file, seconds):
            raise UserError(f"{path.parent} is in use by process {read_pid(file) or '?'}", remedy)
        write_pid(file, os.getpid())
        yield


def is_locked(path: Path) -> bool:
    """Return whether a running process has locked the file."""
    if not path.exists():
        return False
    with open(path, "a+") as file:
        return not lock(file)


def lock(file: TextIO, seconds: float = 0) -> bool:
    """Lock a file until it is closed, also by the children that inherit it. Return False if another process has it."""
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
    """Return the process id in a lock file; 0 if there is none, or what is there cannot be one."""
    file.seek(0)
    with suppress(ValueError):  # of int, and of bytes that are no text
        number = int(file.read(MAX_DIGITS + 1))
        return number if 1 < number < 10**MAX_DIGITS else 0  # the others mean groups, all processes, or init
    return 0


def write_pid(file: TextIO, pid: int) -> None:
    """Write the id of the process that has locked a file into it."""
    file.truncate(0)
    file.write(str(pid))
    file.flush()
