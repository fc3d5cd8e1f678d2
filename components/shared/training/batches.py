"""Read the images of a split by index, as batches on the device.

A split that is small enough for the free memory is loaded whole: onto the device, or else into main memory. A larger
one stays in its memory-mapped shards, on the disk or, shard by shard, in the store. A thread gathers batches ahead of
their turn if they are not on the device already and, for a GPU, copies them from pinned memory in a stream of its own.
The caller chooses the images of each batch, so that neither location nor thread changes what is learnt.
"""

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from components.shared.core.resources import free_memory
from components.shared.data.dataset import Dataset
from components.shared.training.reading.crops import RandomCrops
from components.shared.training.reading.gathered import Gathered
from components.shared.training.streaming.plan import Streaming, check_room_for_all
from components.shared.training.streaming.streamed_split import StreamedSplit

RESIDENT_SHARE = 0.25  # of the free memory, up to which a split is loaded whole
PREFETCH = 3  # batches that are gathered ahead of their turn

Batch = tuple[Tensor, Tensor]


class Source(Protocol):
    """A split from which images are read."""

    def read(self, choices: Iterable[Tensor], epoch: int) -> Generator[Batch]:
        """Yield images (uint8, N x C x H x W) and labels (int64, N) at each of the indices (int64, N, on the CPU).

        Of pictures that are kept as JPEG, the train split has other crops in each epoch.
        """


class ResidentSplit:
    """A split as two tensors on a device."""

    def __init__(self, data: Dataset, split: str, device: torch.device) -> None:
        images, labels = data.load(split)
        self._images, self._labels = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)

    def read(self, choices: Iterable[Tensor], epoch: int) -> Generator[Batch]:
        """Yield the images at each of the indices."""
        return (self._gather(chosen) for chosen in choices)

    def _gather(self, chosen: Tensor) -> Batch:
        """Select the rows on the device."""
        device = self._labels.device
        indices = chosen.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else chosen
        return self._images.index_select(0, indices), self._labels[indices]  # index_select is faster than [indices]


class MappedSplit:
    """A split in memory-mapped shards, of which only what is read is loaded."""

    def __init__(self, data: Dataset, split: str, crops: RandomCrops | None = None) -> None:
        if data.is_remote:
            check_room_for_all(data)
        self._shards = list(data.shards(split))
        self._ends = np.cumsum([len(labels) for _, labels in self._shards])
        self._image_shape, self._crops = data.image_shape, crops

    def read(self, choices: Iterable[Tensor], epoch: int) -> Generator[Batch]:
        """Yield the images at each of the indices."""
        return (self._gather(chosen).batch(epoch) for chosen in choices)

    def _gather(self, chosen: Tensor) -> Gathered:
        """Copy the rows out of each shard that has some of them."""
        indices = chosen.numpy()
        shard_of = np.searchsorted(self._ends, indices, side="right")
        gathered = Gathered(indices, self._image_shape, self._crops)
        for number in np.unique(shard_of):
            found, shard = shard_of == number, self._shards[number]
            gathered.add(found, shard, indices[found] - (self._ends[number] - len(shard[1])))
        return gathered


class Batches:
    """The batches of a split on a device."""

    def __init__(self, source: Source, count: int, device: torch.device, prefetch: bool) -> None:
        """Read from `source`; with `prefetch`, by a thread ahead of their turn."""
        self.count = count
        self._source, self._device, self._prefetch = source, device, prefetch
        is_copied = prefetch and device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if is_copied else None  # type: ignore[no-untyped-call]

    def each(self, choices: Iterable[Tensor], epoch: int = 0) -> Generator[Batch]:
        """Yield images (uint8, N x C x H x W) and labels (int64, N) at each of the indices (int64, N, on the CPU).

        Close it before the next one begins to read.
        """
        if not self._prefetch:
            yield from self._source.read(choices, epoch)
            return
        with closing(self._source.read(choices, epoch)) as batches, ThreadPoolExecutor(1) as thread:
            waiting = deque(thread.submit(self._send, batches) for _ in range(1 + PREFETCH))
            while sent := waiting.popleft().result():
                waiting.append(thread.submit(self._send, batches))
                yield self._receive(sent)

    def in_order(self, size: int, rank: int, ranks: int) -> Iterator[Batch]:
        """Yield the images of this rank once, in batches of `size`; nothing if it has none."""
        own = torch.arange(self.count)[rank::ranks]
        if len(own):
            yield from self.each(own.split(size))  # type: ignore[no-untyped-call]

    def _send(self, batches: Iterator[Batch]) -> "_Sent | None":
        """Begin to copy the next batch to the device; return None if there is none."""
        if not (batch := next(batches, None)):
            return None
        images, labels = batch
        if not self._stream:
            return _Sent(images, labels, None)
        with torch.cuda.stream(self._stream):
            images, labels = (t.pin_memory().to(self._device, non_blocking=True) for t in (images, labels))
            return _Sent(images, labels, self._stream.record_event())

    def _receive(self, sent: "_Sent") -> Batch:
        """Let the current stream wait for the copy, and free the copy's memory only after that stream has used it."""
        if sent.copied:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(sent.copied)
            for tensor in (sent.images, sent.labels):
                tensor.record_stream(current)
        return sent.images, sent.labels


class _Sent(NamedTuple):
    """A batch whose copy to the device may not have finished."""

    images: Tensor
    labels: Tensor
    copied: torch.cuda.Event | None


def split_bytes(data: Dataset, split: str) -> int:
    """Return the bytes that a whole split takes."""
    return data.counts[split] * (math.prod(data.image_shape) + 8)


def fits_on(device: torch.device, size: int) -> bool:
    """Return whether a split of `size` bytes is loaded whole onto a GPU; False for the CPU."""
    return device.type == "cuda" and size <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


def is_resident(data: Dataset, split: str) -> bool:
    """Return whether a split may be loaded whole; False if its images are other crops in each epoch."""
    return data.document.keep == "raw" or split != "train"


def open_batches(data: Dataset, split: str, device: torch.device, streaming: Streaming | None, seed: int) -> Batches:
    """Open a split: load it whole if it takes at most RESIDENT_SHARE of the free memory, or else stream it if told so.

    Raises UserError if the cache of shards is too small for what has to be on the disk at the same time.
    """
    count, size, crops = data.counts[split], split_bytes(data, split), None
    if not is_resident(data, split):
        crops = RandomCrops(data.image_shape, seed)
    elif fits_on(device, size):
        return Batches(ResidentSplit(data, split, device), count, device, prefetch=False)
    elif size <= RESIDENT_SHARE * free_memory():
        return Batches(ResidentSplit(data, split, torch.device("cpu")), count, device, prefetch=device.type == "cuda")
    source = StreamedSplit(data, split, streaming.room, crops) if streaming else MappedSplit(data, split, crops)
    return Batches(source, count, device, prefetch=True)
