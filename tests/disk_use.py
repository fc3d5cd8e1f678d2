"""How many bytes the files in a folder have, now or at the most while something runs, and a disk that is soon full."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def most_held(folder: Path, every: float = 0.05) -> Iterator[list[int]]:
    """Yield a list that holds, in the end, the most bytes that were in the folder, looked up `every` few seconds."""
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            most[0] = max(most[0], held(folder))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def held(folder: Path) -> int:
    """Return the bytes of all files in a folder, some of which may be removed meanwhile."""
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.stat(f"{root}/{name}").st_size
            except FileNotFoundError:
                continue
    return size


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes in memory."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
