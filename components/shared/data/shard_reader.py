"""The shards of a remote split, fetched by threads in the order of their first use, and removed after their last.

The caller says in which order it takes from the shards for the first time, and when it is done with one. In between,
and not longer, a shard is on the disk, in a room of the cache that only this process uses (shard_room.py).
"""

import shutil
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from uuid import uuid4

from components.shared.data.dataset import Dataset, Labels, Readable, Shard, ShardFile
from components.shared.data.shard_cache import StoredShards
from components.shared.data.shard_room import Room

READERS = 4  # threads


class ShardReader:
    """The shards of a split by their numbers, each from its first use to its last."""

    def __init__(self, data: Dataset, split: str, sequence: Sequence[int], room: Room) -> None:
        """Begin to fetch the shards of `sequence`, as many as the room holds at the same time."""
        self._data, self._shards, self._size = data, data.document.splits[split].shards, room.size
        self._folder = room.folder / uuid4().hex
        self._folder.mkdir()
        self._coming, self._held = deque(sequence), 0  # shards that are not asked for yet; bytes of those that are
        self._pool = ThreadPoolExecutor(READERS)
        self._fetched: dict[int, Future[tuple[Readable, Labels]]] = {}
        self._fetch_ahead()

    def take(self, number: int) -> tuple[Readable, Labels]:
        """Return the images and labels (int64, N) of a shard, of which no reference may be left when it is released.

        Raises CorruptDataError if the shard is missing or damaged, and UserError if the store fails.
        """
        return self._fetched[number].result()

    def release(self, number: int) -> None:
        """Remove a shard of which all that is needed has been taken, and fetch what fits in its place."""
        del self._fetched[number]  # and so the last references to the mapped files
        shutil.rmtree(self._folder / str(number))
        self._held -= shard_bytes(self._shards[number])
        self._fetch_ahead()

    def close(self) -> None:
        """Remove what was fetched; call it also after an error."""
        self._pool.shutdown(cancel_futures=True)
        self._fetched.clear()
        with suppress(FileNotFoundError):  # at the end of the process the room goes first
            shutil.rmtree(self._folder)

    def _fetch_ahead(self) -> None:
        while self._coming and self._held + shard_bytes(self._shards[self._coming[0]]) <= self._size:
            number = self._coming.popleft()
            self._held += shard_bytes(self._shards[number])
            self._fetched[number] = self._pool.submit(self._fetch, number)

    def _fetch(self, number: int) -> tuple[Readable, Labels]:
        folder = self._folder / str(number)
        folder.mkdir()
        passing = _Passing(self._data.folder, self._data.document, self._data.stored, folder)
        return passing.open_shard(self._shards[number])


@dataclass(frozen=True)
class _Passing(Dataset):
    """A remote dataset whose shards go into a folder, past the cache."""

    source: StoredShards
    room: Path

    def _open(self, entry: ShardFile) -> FileIO:
        return self.source.fetch(entry.sha256, entry.bytes, self.room / entry.path)


def shard_bytes(shard: Shard) -> int:
    """Return the bytes of a shard's files."""
    return sum(file.bytes for file in shard.files)
