"""The images of a split by index, as batches on the device.

A split that takes little of the free memory lies there whole: on the device, or else in the main memory. A larger one
stays in its memory-mapped shards. What does not lie on the device is gathered by a thread ahead of its turn and, for a
GPU, copied from pinned memory in a stream of its own. Whoever asks decides which images stand in a batch, so that
neither place nor thread changes what is learnt.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from components.shared.core.resources import free_memory
from components.shared.data.dataset import Dataset

RESIDENT_SHARE = 0.25  # of the free memory, up to which a split is held whole
AHEAD = 3  # batches that are gathered before their turn

Batch = tuple[Tensor, Tensor]


class Source(Protocol):
    """Where images lie."""

    def gather(self, chosen: Tensor) -> Batch:
        """The images (uint8, N x C x H x W) and labels (int64, N) at indices on the CPU (int64, N)."""


class Held:
    """A split as two tensors on a device."""

    def __init__(self, data: Dataset, split: str, device: torch.device) -> None:
        images, labels = data.load(split)
        self._images, self._labels = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)

    def gather(self, chosen: Tensor) -> Batch:
        """See Source."""
        device = self._labels.device
        there = chosen.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else chosen
        return self._images.index_select(0, there), self._labels[there]  # index_select is faster than [there]


class Mapped:
    """A split in memory-mapped shards, of which only what is read comes into memory."""

    def __init__(self, data: Dataset, split: str) -> None:
        self._shards = list(data.shards(split))
        self._ends = np.cumsum([len(labels) for _, labels in self._shards])
        self._image_shape = data.image_shape

    def gather(self, chosen: Tensor) -> Batch:
        """See Source."""
        indices = chosen.numpy()
        of = np.searchsorted(self._ends, indices, side="right")
        images, labels = np.empty((len(indices), *self._image_shape), np.uint8), np.empty(len(indices), np.int64)
        for number in np.unique(of):
            found, (shard_images, shard_labels) = of == number, self._shards[number]
            rows = indices[found] - (self._ends[number] - len(shard_labels))
            images[found], labels[found] = shard_images[rows], shard_labels[rows]
        return torch.from_numpy(images), torch.from_numpy(labels)


class Batches:
    """The batches of a split on a device."""

    def __init__(self, source: Source, count: int, device: torch.device, ahead: bool) -> None:
        """`ahead` has a thread gather them, where they do not lie on the device already."""
        self.count = count
        self._source, self._device, self._ahead = source, device, ahead
        is_copied = ahead and device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if is_copied else None  # type: ignore[no-untyped-call]

    def each(self, choices: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield images (uint8, N x C x H x W) and labels (int64, N) at each of the indices (int64, N, on the CPU)."""
        if not self._ahead:
            yield from map(self._source.gather, choices)
            return
        with ThreadPoolExecutor(1) as thread:
            waiting: deque[Future[_Sent]] = deque()
            for chosen in choices:
                waiting.append(thread.submit(self._send, chosen))
                if len(waiting) > AHEAD:
                    yield self._receive(waiting.popleft().result())
            while waiting:
                yield self._receive(waiting.popleft().result())

    def in_order(self, size: int, rank: int, ranks: int) -> Iterator[Batch]:
        """Yield this rank's share of all images once, in batches of `size`."""
        yield from self.each(torch.split(torch.arange(rank, self.count, ranks), size))

    def _send(self, chosen: Tensor) -> "_Sent":
        images, labels = self._source.gather(chosen)
        if not self._stream:
            return _Sent(images, labels, None)
        with torch.cuda.stream(self._stream):
            images, labels = (t.pin_memory().to(self._device, non_blocking=True) for t in (images, labels))
            return _Sent(images, labels, self._stream.record_event())

    def _receive(self, sent: "_Sent") -> Batch:
        """Have the computing wait for the copy, and the copy's memory for the computing."""
        if sent.copied:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(sent.copied)
            for tensor in (sent.images, sent.labels):
                tensor.record_stream(computing)
        return sent.images, sent.labels


class _Sent(NamedTuple):
    """A batch whose copy to the device may still be under way."""

    images: Tensor
    labels: Tensor
    copied: torch.cuda.Event | None


def split_bytes(data: Dataset, split: str) -> int:
    """The memory that a split takes whole."""
    return data.counts[split] * (math.prod(data.image_shape) + 8)


def fits_on(device: torch.device, size: int) -> bool:
    """Whether a split of so many bytes lies on the device whole; never on the CPU."""
    return device.type == "cuda" and size <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


def open_batches(data: Dataset, split: str, device: torch.device) -> Batches:
    """The batches of a split, which is held whole where it takes up to RESIDENT_SHARE of the free memory."""
    count, size = data.counts[split], split_bytes(data, split)
    if fits_on(device, size):
        return Batches(Held(data, split, device), count, device, ahead=False)
    if size <= RESIDENT_SHARE * free_memory():
        return Batches(Held(data, split, torch.device("cpu")), count, device, ahead=device.type == "cuda")
    return Batches(Mapped(data, split), count, device, ahead=True)
