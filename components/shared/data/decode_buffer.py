"""A buffer of decoded images on disk: they are written once, in order, and read as often as needed.

Two files: the pixels of each image (one channel if it is grayscale, else three), and a row of facts on each image.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.data.dataset import SPLITS, Images, Labels

Rows = NDArray[np.void]
ROW = np.dtype([("digest", "<u8", (2,)), ("label", "<i4"), ("split", "u1"), ("channels", "u1")])

_COUNT_ROWS = 65_536  # counted at a time


class DecodeBuffer:
    """Images (uint8, C x size x size, C 1 or 3) and a ROW for each, in files in `folder`."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self.count = 0
        self.channels = 1
        self._pixels, self._rows = folder / "pixels", folder / "rows"
        for path in (self._pixels, self._rows):
            path.write_bytes(b"")

    def append(self, images: Images, labels: Labels, split: int) -> None:
        """Add images (uint8, N x C x size x size), their labels (N) and the number of the source's split.

        A colour image whose channels are all equal counts as grayscale. An image's digest is the BLAKE2b of its pixels.
        """
        rows = np.zeros(len(labels), ROW)
        rows["label"], rows["split"], rows["channels"] = labels, split, _channels(images)
        plane = self.size**2
        data, stride = np.ascontiguousarray(images).reshape(-1).data, images.shape[1] * plane
        pieces = [data[i * stride : i * stride + n * plane] for i, n in enumerate(rows["channels"].tolist())]
        digests = b"".join([hashlib.blake2b(piece, digest_size=16).digest() for piece in pieces])
        rows["digest"] = np.frombuffer(digests, "<u8").reshape(-1, 2)
        with open(self._pixels, "ab", buffering=2**20) as file:
            file.writelines(pieces)
        with open(self._rows, "ab") as file:
            file.write(rows.tobytes())
        self.count += len(rows)
        self.channels = max(self.channels, int(rows["channels"].max(initial=1)))

    def rows(self, size: int) -> Iterator[Rows]:
        """Yield the rows, `size` at a time."""
        with open(self._rows, "rb") as file:
            for start in range(0, self.count, size):
                yield _read(file, ROW, min(size, self.count - start))

    def counts(self, num_classes: int) -> NDArray[np.int64]:
        """Return the number of images (split x class)."""
        counts = np.zeros((len(SPLITS), num_classes), np.int64)
        for rows in self.rows(_COUNT_ROWS):
            np.add.at(counts, (rows["split"], rows["label"]), 1)
        return counts

    def blocks(self, size: int) -> Iterator[tuple[Images, Rows]]:
        """Yield images (uint8, N x C x size x size, C the maximum of all images) and rows, `size` at a time."""
        with open(self._pixels, "rb") as file:
            for rows in self.rows(size):
                own = rows["channels"].astype(np.int64)
                planes = _read(file, np.dtype(np.uint8), int(own.sum()) * self.size**2)
                first = np.cumsum(own) - own
                # A grayscale image among colour images repeats its only plane three times.
                which = first[:, None] + np.arange(self.channels) * (own > 1)[:, None]
                yield planes.reshape(-1, self.size, self.size)[which], rows


def _channels(images: Images) -> NDArray[np.uint8]:
    if images.shape[1] == 1:
        return np.ones(len(images), np.uint8)
    gray = (images == images[:, :1]).all(axis=(1, 2, 3))
    return np.where(gray, 1, 3).astype(np.uint8)


def _read(file: Any, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    array = np.fromfile(file, dtype, count)
    assert len(array) == count, f"{file.name} ends early"
    return array
