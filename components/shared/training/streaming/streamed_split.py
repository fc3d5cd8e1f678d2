"""A remote split whose shards are fetched ahead of their first use in an epoch, and removed after their last."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from components.shared.data.dataset import Dataset
from components.shared.data.shard_reader import ShardReader
from components.shared.data.shard_room import Room
from components.shared.training.reading.crops import RandomCrops
from components.shared.training.reading.gathered import Gathered

Indices = NDArray[np.int64]


class StreamedSplit:
    """A split that is read in an order that is known before, each shard once."""

    def __init__(self, data: Dataset, split: str, room: Room, crops: RandomCrops | None) -> None:
        """Read within a room that holds as many shards as the order needs at the same time."""
        self._data, self._split, self._room, self._crops = data, split, room, crops
        self._ends = np.cumsum([shard.count for shard in data.document.splits[split].shards])

    def read(self, choices: Iterable[Tensor], epoch: int) -> Generator[tuple[Tensor, Tensor]]:
        """Yield images (uint8, N x C x H x W) and labels (int64, N) at each of the indices (int64, N, on the CPU)."""
        batches = [chosen.numpy() for chosen in choices]
        uses = _Uses(self._ends, batches)
        with closing(ShardReader(self._data, self._split, uses.sequence, self._room)) as reader:
            for number, indices in enumerate(batches):
                yield self._gather(reader, uses, number, indices).batch(epoch)

    def _gather(self, reader: ShardReader, uses: "_Uses", number: int, indices: Indices) -> Gathered:
        """Copy the rows of a batch out of the shards, which are released as soon as no later batch needs them."""
        gathered = Gathered(indices, self._data.image_shape, self._crops)
        turns = uses.turns[_shards_of(self._ends, indices)]
        for turn in np.unique(turns).tolist():  # so those that are open come before those that need their place
            shard, found = uses.sequence[turn], turns == turn
            first = int(self._ends[shard - 1]) if shard else 0
            gathered.add(found, reader.take(shard), indices[found] - first)
            if uses.last[shard] == number:
                reader.release(shard)
        return gathered


class _Uses:
    """When batches use the shards: in which sequence for the first time, and in which batch for the last."""

    def __init__(self, ends: Indices, batches: Sequence[Indices]) -> None:
        first, self.last = np.full(len(ends), -1), np.full(len(ends), -1)
        place = 0
        for number, indices in enumerate(batches):
            shards = _shards_of(ends, indices)
            self.last[shards] = number
            found, places = np.unique(shards, return_index=True)
            new = first[found] < 0
            first[found[new]] = place + places[new]
            place += len(indices)
        used = np.flatnonzero(first >= 0)
        self.sequence: list[int] = used[np.argsort(first[used], kind="stable")].tolist()
        self.turns = np.empty(len(ends), np.int64)  # of each shard, its place in the sequence
        self.turns[self.sequence] = np.arange(len(self.sequence))


def _shards_of(ends: Indices, indices: Indices) -> Indices:
    return np.searchsorted(ends, indices, side="right")
