"""A buffer of decoded images on disk: they are written once, in order, and read as often as needed.

Two files: the pixels of each image (one channel if it is grayscale, else three), or the JPEG that is kept of it, and a
row of facts on each picture.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.core.document import Keep
from components.shared.data.dataset import SPLITS, Images, Labels
from components.shared.data.pictures.kept import Kept
from components.shared.data.preparation.rows import ROW, Rows, describe, describe_kept

Content = Images | list[bytes]  # of images: their pixels, or the JPEGs that are kept of them

_COUNT_ROWS = 65_536  # counted at a time


class DecodeBuffer:
    """Images (uint8, C x size x size, C 1 or 3) and a ROW for each, in files in `folder`."""

    def __init__(self, folder: Path, size: int, keep: Keep = "raw") -> None:
        self.size, self.keep = size, keep
        self.count = 0  # of pictures
        self._pixels, self._rows = folder / "pixels", folder / "rows"
        for path in (self._pixels, self._rows):
            path.write_bytes(b"")

    def append(
        self,
        images: Images | Sequence[Kept],
        labels: Labels,
        split: int,
        is_good: NDArray[np.bool_] | None = None,
        sizes: NDArray[np.int32] | None = None,
    ) -> None:
        """Add pictures with their labels (N), the number of the source's split, and their widths and heights (N x 2).

        `images` (uint8, M x C x size x size, or as they are kept) are those of the good ones; the others only have a
        row.
        """
        good = np.ones(len(labels), bool) if is_good is None else is_good
        rows = np.zeros(len(labels), ROW)
        rows["label"], rows["split"] = labels, split
        if sizes is not None:
            rows["width"], rows["height"] = sizes.T
        described = rows[good]
        pieces: Sequence[memoryview | bytes]
        pieces = describe(described, images) if isinstance(images, np.ndarray) else describe_kept(described, images)
        rows[good] = described
        with open(self._pixels, "ab", buffering=2**20) as file:
            file.writelines(pieces)
        with open(self._rows, "ab") as file:
            file.write(rows.tobytes())
        self.count += len(rows)

    def rows(self, size: int) -> Iterator[Rows]:
        """Yield the rows of all pictures, `size` at a time."""
        with open(self._rows, "rb") as file:
            for start in range(0, self.count, size):
                yield _read(file, ROW, min(size, self.count - start))

    def counts(self, num_classes: int) -> NDArray[np.int64]:
        """Return the number of pictures (split x class)."""
        counts = np.zeros((len(SPLITS), num_classes), np.int64)
        for rows in self.rows(_COUNT_ROWS):
            np.add.at(counts, (rows["split"], rows["label"]), 1)
        return counts

    def units(self, size: int, block: int) -> Iterator[tuple[Rows, Iterator[Content]]]:
        """Yield the rows of each `size` pictures, and the images of the good ones, `block` at a time, to read at once.

        The images (uint8, N x C x size x size) of such a unit have three channels if one of them has.
        """
        with open(self._pixels, "rb") as file:
            for rows in self.rows(size):
                good = rows[rows["channels"] > 0]
                if self.keep == "jpeg":
                    yield rows, self._kept(file, good["bytes"].tolist(), block)
                else:
                    yield rows, self._images(file, good["channels"].astype(np.int64), block)

    def _kept(self, file: Any, sizes: list[int], block: int) -> Iterator[Content]:
        for start in range(0, len(sizes), block):
            yield [file.read(size) for size in sizes[start : start + block]]

    def _images(self, file: Any, channels: NDArray[np.int64], block: int) -> Iterator[Content]:
        most = int(channels.max(initial=1))
        for start in range(0, len(channels), block):
            own = channels[start : start + block]
            planes = _read(file, np.dtype(np.uint8), int(own.sum()) * self.size**2)
            first = np.cumsum(own) - own
            # A grayscale image among colour images repeats its only plane three times.
            which = first[:, None] + np.arange(most) * (own > 1)[:, None]
            yield planes.reshape(-1, self.size, self.size)[which]


def _read(file: Any, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    array = np.fromfile(file, dtype, count)
    assert len(array) == count, f"{file.name} ends early"
    return array
