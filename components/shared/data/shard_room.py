"""Parts of the cache of shards that belong to one process each, so that all together never exceed the cache.

A part is a folder `room-<bytes>-<random>` in the cache, which is locked as long as its process lives: what a killed one
left is removed by the next that looks. Where a file system has no locks (NFS), it is not; remove it by hand.
"""

import fcntl
import re
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4
from weakref import finalize

from components.shared.storage.download_cache import locked

NAME = re.compile("room-([0-9]+)-[0-9a-f]{32}")


class NoRoom(Exception):
    """The cache has less room than asked for: so many bytes."""

    def __init__(self, free: int) -> None:
        super().__init__(free)
        self.free = free


class Room:
    """A folder for so many bytes, until it is closed or nothing refers to it any more."""

    def __init__(self, cache: Path, size: int, limit: int) -> None:
        """Make it in a cache for `limit` bytes. Raises NoRoom if other processes have too much of it."""
        self.size, self._stack = size, ExitStack()
        with locked(cache):  # so that no other process sees the folder before that is locked
            free = limit - _held(cache)
            if size > free:
                raise NoRoom(free)
            self.folder = cache / f"room-{size}-{uuid4().hex}"
            self.folder.mkdir()
            self._stack.enter_context(locked(self.folder))
        self.close = finalize(self, _leave, self.folder, self._stack)


def reserved(cache: Path) -> int:
    """Return the bytes of the cache that belong to processes; those of processes that are gone become free."""
    with locked(cache):
        return _held(cache)


def _held(cache: Path) -> int:
    size = 0
    for folder in cache.iterdir():
        if name := NAME.fullmatch(folder.name):
            with suppress(FileNotFoundError), locked(folder, fcntl.LOCK_NB) as is_left:
                if is_left:
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    size += int(name[1])
    return size


def _leave(folder: Path, lock: ExitStack) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()
