"""A unit of a dataset: a fixed number of pictures, one after the other in the source, which are prepared together.

A unit has a shard for each split that has images of it, and a row of facts on each image. It depends on nothing but its
own pictures and their splits, so that units can be prepared in any order, by any number of pods.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.core.document import Keep
from components.shared.core.npy import npy_header
from components.shared.data.dataset import SPLIT_ROWS, SPLITS, Shard, ShardFile
from components.shared.data.pictures.kept import JPEG_SHARE
from components.shared.data.preparation.decode_buffer import Content
from components.shared.data.preparation.rows import UNIT_COLUMNS, Rows, write_rows

UNIT_BYTES = 128 * 2**20  # of pixels in three channels
# Beyond so many bytes a training reads the images in windows: the more units there are in one, the better it shuffles.
LARGE_BYTES, LARGE_UNIT_BYTES = 2**31, 16 * 2**20
MAX_UNITS = 2**15  # whose shards, also if each leaves out some images, take less than DatasetDocument.MAX_BYTES


def unit_size(image_size: int, pictures: int, keep: Keep) -> int:
    """Return the number of pictures of a unit of a source that has so many: a power of two.

    There are at most MAX_UNITS: of a source that would have more, the units are larger.
    """
    of_picture = 3 * image_size**2 // (JPEG_SHARE if keep == "jpeg" else 1)
    most = UNIT_BYTES if pictures * of_picture <= LARGE_BYTES else LARGE_UNIT_BYTES
    size = 1 << int(math.log2(max(1, most // of_picture)))
    while size * MAX_UNITS < pictures:
        size *= 2
    return min(SPLIT_ROWS, size)


@dataclass(frozen=True)
class Unit:
    """A unit that is written: the channels of its images, and its shards by split; each holds all of its images."""

    number: int
    channels: int
    shards: dict[str, Shard]


def write_unit(folder: Path, number: int, rows: Rows, images: Iterable[Content]) -> Unit:
    """Write the shards of a unit to a folder, and note in the rows (N) which image is where.

    `images` are blocks of images (uint8, C x H x W each, or the JPEGs that are kept of them), N in all, in the order of
    the rows.
    """
    rows["unit"] = number
    for split in range(len(SPLITS)):
        chosen = rows["split"] == split
        rows["row"][chosen] = np.arange(np.count_nonzero(chosen))
    writers: dict[int, _PixelsWriter | _KeptWriter] = {}
    start, channels = 0, 1
    for block in images:
        part = rows[start : start + len(block)]
        start += len(block)
        channels = max(channels, block.shape[1] if isinstance(block, np.ndarray) else int(part["channels"].max()))
        for split in np.unique(part["split"]).tolist():
            if split not in writers:
                writers[split] = _writer(folder, f"{SPLITS[split]}-{number:05}", rows[rows["split"] == split], block)
            chosen = part["split"] == split
            writers[split].append(block, chosen, part["label"][chosen].astype(np.int64))
    return Unit(number, channels, {SPLITS[split]: writers[split].shard() for split in sorted(writers)})


def _writer(folder: Path, stem: str, rows: Rows, block: Content) -> "_PixelsWriter | _KeptWriter":
    """Return what writes the shard of these rows, of which a block has the first images."""
    if isinstance(block, np.ndarray):
        return _PixelsWriter(folder, stem, (len(rows), *block.shape[1:]))
    return _KeptWriter(folder, stem, rows["bytes"])


def write_assigned(
    folder: Path, number: int, rows: Rows, splits: NDArray[np.uint8], images: Iterable[Content], path: Path
) -> Unit:
    """Write a unit by the splits of all its pictures (N), and the rows of the good ones to a Parquet file.

    `rows` (N) are those of all pictures, `images` those of the good ones, as `write_unit` takes them.
    """
    rows["split"] = splits
    good = rows[rows["channels"] > 0]
    unit = write_unit(folder, number, good, images)
    write_rows(path, [good], UNIT_COLUMNS)
    return unit


class _PixelsWriter:
    """The files of a shard, filled in order."""

    def __init__(self, folder: Path, stem: str, shape: tuple[int, ...]) -> None:
        self._count = shape[0]
        self._images = _ArrayFile(folder / f"{stem}.images.npy", npy_header(shape, np.uint8))
        self._labels = _ArrayFile(folder / f"{stem}.labels.npy", npy_header(shape[:1], np.int64))

    def append(self, block: Content, chosen: NDArray[np.bool_], labels: NDArray[np.int64]) -> None:
        assert isinstance(block, np.ndarray)
        self._images.write_array(block[chosen])
        self._labels.write_array(labels)

    def shard(self) -> Shard:
        return Shard(count=self._count, images=self._images.entry(), labels=self._labels.entry())


class _KeptWriter:
    """The files of a shard of pictures that are kept as JPEG, given how many bytes each has."""

    def __init__(self, folder: Path, stem: str, sizes: NDArray[np.int64]) -> None:
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        self._count = len(sizes)
        self._images = _ArrayFile(folder / f"{stem}.images.npy", npy_header((int(offsets[-1]),), np.uint8))
        self._labels = _ArrayFile(folder / f"{stem}.labels.npy", npy_header(sizes.shape, np.int64))
        self._offsets = _ArrayFile(folder / f"{stem}.offsets.npy", npy_header(offsets.shape, np.int64))
        self._offsets.write_array(offsets)

    def append(self, block: Content, chosen: NDArray[np.bool_], labels: NDArray[np.int64]) -> None:
        self._images.write(b"".join([block[place] for place in np.flatnonzero(chosen).tolist()]))
        self._labels.write_array(labels)

    def shard(self) -> Shard:
        images, labels, offsets = (file.entry() for file in (self._images, self._labels, self._offsets))
        return Shard(count=self._count, images=images, labels=labels, offsets=offsets)


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

    def write_array(self, array: NDArray[Any]) -> None:
        self.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def entry(self) -> ShardFile:
        return ShardFile(path=self.path.name, sha256=self.sha256.hexdigest(), bytes=self.bytes)
