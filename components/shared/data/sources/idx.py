"""The IDX format of MNIST: reader and writer side by side, and data sets in files named as MNIST's.

A magic number (two zero bytes, the type, the number of dimensions), the dimensions as big-endian 32-bit integers, and
the values row by row. Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", file formats.
"""

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.data.layout.folder_layout import NO_SPLITS
from components.shared.data.sources.schemes import RawDescription

UNSIGNED_BYTE = 0x08
MAX_ROW_BYTES = 64 * 2**20
MAX_DEFLATE_RATIO = 1032  # of unpacked to packed bytes (zlib's technical details)
IDX_NAME = re.compile(r"(train|val|t10k|test)-(images[.-]idx3|labels[.-]idx1)-ubyte(\.gz)?")
SPLITS = {"train": "train", "val": "val", "t10k": "test", "test": "test"}  # by the start of a file's name
BLOCK_ROWS = 1 << 16
BROKEN = (EOFError, gzip.BadGzipFile, zlib.error)  # raised while a gzip file is read
AGAIN = "replace it with an intact copy"


@dataclass(frozen=True)
class Idx:
    """An IDX file of unsigned bytes, its header read and checked; `.gz` files are decompressed on the way."""

    path: Path
    shape: tuple[int, ...]

    def rows(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the file's rows in blocks of at most `size` (uint8, n x the shape's rest), in constant memory.

        Raises UserError if the file is shorter or longer than its header says, or its compression is broken.
        """
        row_bytes = math.prod(self.shape[1:])
        try:
            with _open(self.path) as file:
                file.read(4 + 4 * len(self.shape))
                for start in range(0, self.shape[0], size):
                    count = min(size, self.shape[0] - start)
                    yield self._block(file, count, start, row_bytes)
                if file.read(1):
                    raise UserError(f"{self.path} is longer than its header says ({self.shape[0]} rows)", AGAIN)
        except BROKEN as error:
            raise UserError(f"{self.path} is not a complete gzip file ({error})", AGAIN) from None

    def _block(self, file: BinaryIO, count: int, start: int, row_bytes: int) -> NDArray[np.uint8]:
        data = file.read(count * row_bytes)
        if len(data) != count * row_bytes:
            have = start + len(data) // max(row_bytes, 1)
            raise UserError(f"{self.path} is truncated: {have} of {self.shape[0]} rows", AGAIN)
        return np.frombuffer(data, np.uint8).reshape(count, *self.shape[1:])


def open_idx(path: Path, dimensions: int) -> Idx:
    """Read and check the header of an IDX file of unsigned bytes.

    Raises UserError if the magic number is not that of `dimensions` dimensions, a dimension is 0, or the header does
    not agree with the file's size.
    """
    try:
        with _open(path) as file:
            header = file.read(4 + 4 * dimensions)
    except BROKEN as error:
        raise UserError(f"{path} is not a complete gzip file ({error})", AGAIN) from None
    magic = UNSIGNED_BYTE << 8 | dimensions
    if len(header) < 4 or struct.unpack(">I", header[:4])[0] != magic:
        raise UserError(
            f"{path} has the magic number 0x{header[:4].hex()}, not 0x{magic:08x}",
            f"give an IDX file of unsigned bytes in {dimensions} dimensions",
        )
    if len(header) < 4 + 4 * dimensions:
        raise UserError(f"{path} is truncated in its header", AGAIN)
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 0 in shape or math.prod(shape[1:]) > MAX_ROW_BYTES:
        raise UserError(f"{path} has a header for {' x '.join(map(str, shape))} values", AGAIN)
    expected = len(header) + math.prod(shape)
    size = path.stat().st_size
    if size * MAX_DEFLATE_RATIO < expected if path.suffix == ".gz" else size != expected:
        raise UserError(f"{path} has {size} bytes, but its header announces {expected}: truncated or not IDX", AGAIN)
    return Idx(path, shape)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array of unsigned bytes as an IDX file, gzipped if the name ends in `.gz`."""
    header = struct.pack(f">I{array.ndim}I", UNSIGNED_BYTE << 8 | array.ndim, *array.shape)
    data = header + np.ascontiguousarray(array, np.uint8).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def describe_idx(folder: Path, name: str, classes: Sequence[str] = ()) -> RawDescription:
    """Describe the IDX files in `folder`; without `classes`, they are the numbers up to the largest label.

    Raises UserError, naming the data set, if images have no labels, there are none to train on, or only one class.
    """
    splits, counts, largest = {}, {}, 0
    for images in sorted(folder.glob("*-images-idx3-ubyte*"), reverse=True):  # train before test
        prefix, _, rest = images.name.partition("-images-idx3")
        labels = folder / f"{prefix}-labels-idx1{rest}"
        if not labels.is_file():
            raise UserError(f"{name} has {images.name} without {labels.name}", "add it")
        split = SPLITS.get(prefix, NO_SPLITS)
        marks, counts[split] = open_idx(labels, 1), open_idx(images, 3).shape[0]
        largest = max(largest, *(int(block.max()) for block in marks.rows(BLOCK_ROWS)))
        splits[split] = {"images": images.name, "labels": labels.name}
    if not splits.keys() & {"train", NO_SPLITS}:
        raise UserError(f"{name} has no train-images-idx3-ubyte", "add it and its labels")
    if not classes and largest == 0:
        raise UserError(f"{name} holds one class only (label 0)", "give a data set of two or more classes")
    return {
        "name": name,
        "kind": "idx",
        "classes": classes or [str(label) for label in range(largest + 1)],
        "counts": counts,
        "files": [pair[role] for pair in splits.values() for role in ("images", "labels")],
        "splits": splits,
    }


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb"))
