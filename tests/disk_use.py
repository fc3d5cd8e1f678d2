"""How many bytes the files in a folder have: now, or at the most while something runs."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
