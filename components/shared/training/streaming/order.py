"""The order of the images in an epoch on a data set that is too large for a full shuffle: shuffled within a window.

A full shuffle takes each image from any shard, so that all shards must be at hand at the same time. Here the shards are
drawn in a random order, their images in a random order within each, and each image is then moved by a random distance,
so that the images of a shard spread over a window and mix with those of its neighbors. At any time, only the shards
around the present place are needed. It is the algorithm `py1e` of MosaicML Streaming
(github.com/mosaicml/streaming, streaming/base/shuffle/py1e.py), which spreads the images of a shard evenly over the
window instead of shuffling block after block, so that downloads are as even as the steps. Two things differ: a window's
size is not drawn, because it bounds the disk, and the shards are dealt to other streams in each epoch, because no disk
keeps them from one epoch to the next.

The epoch is cut into `streams` equal parts, which are shuffled by themselves, each with its share of the window, and
read side by side: a batch is a piece of the first stream, one of the second, and so on. A group of processes whose size
divides the number of streams reads the same batches as one process does, each process from streams of its own. Every
other stream runs backwards, so that a shard that is cut between two streams is read in both at the same time.

Only the raw bits of PCG64 are used, which NumPy never changes; its shuffles and its distributions may (NEP 19).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AUTO_BYTES = 2 * 2**30  # of pixels, or about of JPEGs, in the window of shuffle_window=0
STREAMS = 8  # at most, in a group of so many processes or fewer


def window_size(asked: int, images: int, image_bytes: int) -> int:
    """Return the images in the window of a split: as asked or, if that is 0, as many as AUTO_BYTES hold.

    Returns 0 if the window holds the whole split, which a full shuffle mixes best.
    """
    window = asked or max(1, AUTO_BYTES // image_bytes)
    return window if window < images else 0


def count_streams(batch: int, processes: int) -> int:
    """Return the number of streams: the largest divisor of 8 that divides the batch, if the processes divide it.

    So 1, 2, 4 or 8 processes read the same batches. Another number of processes takes a stream for each.
    """
    streams = math.gcd(STREAMS, batch)
    return streams if streams % processes == 0 else processes


@dataclass(frozen=True)
class WindowedOrder:
    """The order in each epoch; `counts` are the images of the shards, `batches` those of an epoch, of `batch` images.

    The images that are too few for another batch are left out: other ones in each epoch.
    """

    counts: Sequence[int]
    window: int
    streams: int
    batch: int
    batches: int
    seed: int

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Return the images of all batches of an epoch, one batch after another."""
        bits = np.random.PCG64(np.random.SeedSequence((self.seed, number)))
        images, ends = self._drawn(bits)
        length = self.batches * self.batch // self.streams
        streams = [self._stream(images, ends, start * length, length, bits) for start in range(self.streams)]
        return np.stack([stream.reshape(self.batches, -1) for stream in streams], axis=1).reshape(-1)

    def _drawn(self, bits: np.random.PCG64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all images, shard after shard, in random order, and where each shard ends."""
        counts = np.asarray(self.counts, np.int64)
        firsts = np.cumsum(counts) - counts
        shards = _permutation(len(counts), bits)
        images = np.concatenate([firsts[shard] + _permutation(int(counts[shard]), bits) for shard in shards])
        return images, np.cumsum(counts[shards])

    def _stream(
        self, images: NDArray[np.int64], ends: NDArray[np.int64], start: int, length: int, bits: np.random.PCG64
    ) -> NDArray[np.int64]:
        """Return so many images from `start` on, each moved within the window of its shard."""
        images, inside = images[start : start + length], ends[(start < ends) & (ends < start + length)]
        edges = np.concatenate([[0], inside - start, [length]])  # of the shards, and of pieces at both ends
        if start // length % 2:
            images, edges = images[::-1], length - edges[::-1]
        sizes = np.diff(edges)
        reach = np.maximum(0, (self.window / self.streams - sizes) / 2)
        lowest, highest = -np.minimum(reach, edges[:-1]), np.minimum(reach, length - edges[1:])
        moved = np.repeat(lowest, sizes) + _uniform(length, bits) * np.repeat(highest - lowest, sizes)
        return images[np.argsort(np.arange(length) + moved, kind="stable")]


def _permutation(count: int, bits: np.random.PCG64) -> NDArray[np.int64]:
    return np.argsort(bits.random_raw(count), kind="stable")


def _uniform(count: int, bits: np.random.PCG64) -> NDArray[np.float64]:
    """Return numbers from 0 to below 1."""
    return (bits.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
