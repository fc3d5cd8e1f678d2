"""A unit of a dataset: a fixed number of pictures, one after the other in the source, which are prepared together.

A unit has a shard for each split that has images of it, and a row of facts on each image. It depends on nothing but its
own pictures and their splits, so that units can be prepared in any order, by any number of pods.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.shared.core.npy import npy_header
from components.shared.data.dataset import SPLIT_ROWS, SPLITS, Images, Shard, ShardFile
from components.shared.data.preparation.rows import UNIT_COLUMNS, Rows, write_rows

UNIT_BYTES = 128 * 2**20  # of pixels in three channels
# Beyond so many bytes a training reads the images in windows: the more units there are in one, the better it shuffles.
LARGE_BYTES, LARGE_UNIT_BYTES = 2**31, 16 * 2**20


def unit_size(image_size: int, pictures: int) -> int:
    """Return the number of pictures of a unit of a source that has so many: a power of two."""
    pixels = 3 * image_size**2
    most = UNIT_BYTES if pictures * pixels <= LARGE_BYTES else LARGE_UNIT_BYTES
    return min(SPLIT_ROWS, 1 << int(math.log2(max(1, most // pixels))))


@dataclass(frozen=True)
class Unit:
    """A unit that is written: the channels of its images, and its shards by split; each holds all of its images."""

    number: int
    channels: int
    shards: dict[str, Shard]


def write_unit(folder: Path, number: int, rows: Rows, images: Iterable[Images]) -> Unit:
    """Write the shards of a unit to a folder, and note in the rows (N) which image is where.

    `images` are blocks of images (uint8, C x H x W each), N in all, in the order of the rows.
    """
    rows["unit"] = number
    for split in range(len(SPLITS)):
        chosen = rows["split"] == split
        rows["row"][chosen] = np.arange(np.count_nonzero(chosen))
    writers: dict[int, _ShardWriter] = {}
    start, channels = 0, 1
    for block in images:
        part = rows[start : start + len(block)]
        start, channels = start + len(block), block.shape[1]
        for split in np.unique(part["split"]).tolist():
            if split not in writers:
                count = int(np.count_nonzero(rows["split"] == split))
                writers[split] = _ShardWriter(folder, f"{SPLITS[split]}-{number:05}", (count, *block.shape[1:]))
            chosen = part["split"] == split
            writers[split].append(block[chosen], part["label"][chosen].astype(np.int64))
    return Unit(number, channels, {SPLITS[split]: writers[split].shard() for split in sorted(writers)})


def write_assigned(
    folder: Path, number: int, rows: Rows, splits: NDArray[np.uint8], images: Iterable[Images], path: Path
) -> Unit:
    """Write a unit by the splits of all its pictures (N), and the rows of the good ones to a Parquet file.

    `rows` (N) are those of all pictures, `images` those of the good ones, as `write_unit` takes them.
    """
    rows["split"] = splits
    good = rows[rows["channels"] > 0]
    unit = write_unit(folder, number, good, images)
    write_rows(path, [good], UNIT_COLUMNS)
    return unit


class _ShardWriter:
    """The files of a shard, filled in order."""

    def __init__(self, folder: Path, stem: str, shape: tuple[int, ...]) -> None:
        self._count = shape[0]
        self._images = _ArrayFile(folder / f"{stem}.images.npy", npy_header(shape, np.uint8))
        self._labels = _ArrayFile(folder / f"{stem}.labels.npy", npy_header(shape[:1], np.int64))

    def append(self, images: Images, labels: NDArray[np.int64]) -> None:
        for file, array in ((self._images, images), (self._labels, labels)):
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def shard(self) -> Shard:
        return Shard(count=self._count, images=self._images.entry(), labels=self._labels.entry())


class _ArrayFile:
    """A file that is hashed while it is written, and not mapped, so that a full disk is an OSError."""

    def __init__(self, path: Path, header: bytes) -> None:
        self.path = path
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        path.write_bytes(b"")
        self.write(header)

    def write(self, data: bytes | memoryview) -> None:
        with open(self.path, "ab") as file:
            file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)

    def entry(self) -> ShardFile:
        return ShardFile(path=self.path.name, sha256=self.sha256.hexdigest(), bytes=self.bytes)
