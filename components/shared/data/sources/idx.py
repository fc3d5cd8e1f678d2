"""The IDX format of MNIST: reader and writer side by side.

A magic number (two zero bytes, the type, the number of dimensions), the dimensions as big-endian 32-bit integers, and
the values row by row. Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", file formats.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError

UNSIGNED_BYTE = 0x08
MAX_ROW_BYTES = 64 * 2**20
MAX_DEFLATE_RATIO = 1032  # of unpacked to packed bytes (zlib's technical details)


@dataclass(frozen=True)
class Idx:
    """An IDX file of unsigned bytes, its header read and checked; `.gz` files are decompressed on the way."""

    path: Path
    shape: tuple[int, ...]

    def rows(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the file's rows in blocks of at most `size` (uint8, n x the shape's rest), in constant memory.

        UserError where the file is shorter or longer than its header says, or its compression is broken.
        """
        row_bytes = math.prod(self.shape[1:])
        try:
            with _open(self.path) as file:
                file.read(4 + 4 * len(self.shape))
                for start in range(0, self.shape[0], size):
                    count = min(size, self.shape[0] - start)
                    yield self._block(file, count, start, row_bytes)
                if file.read(1):
                    raise UserError(f"{self.path} is longer than its header says ({self.shape[0]} rows); get it again")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{self.path} is no whole gzip file ({error}); get it again") from None

    def _block(self, file: BinaryIO, count: int, start: int, row_bytes: int) -> NDArray[np.uint8]:
        data = file.read(count * row_bytes)
        if len(data) != count * row_bytes:
            have = start + len(data) // max(row_bytes, 1)
            raise UserError(f"{self.path} is truncated: {have} of {self.shape[0]} rows; get it again")
        return np.frombuffer(data, np.uint8).reshape(count, *self.shape[1:])


def open_idx(path: Path, dimensions: int) -> Idx:
    """Read and check the header of an IDX file of unsigned bytes.

    UserError where the magic number is not that of `dimensions` dimensions, a dimension is 0, or the file's size is
    not what the header says.
    """
    try:
        with _open(path) as file:
            header = file.read(4 + 4 * dimensions)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is no whole gzip file ({error}); get it again") from None
    magic = UNSIGNED_BYTE << 8 | dimensions
    if len(header) < 4 or struct.unpack(">I", header[:4])[0] != magic:
        raise UserError(f"{path} has the magic number 0x{header[:4].hex()}, not 0x{magic:08x}; it is no such IDX file")
    if len(header) < 4 + 4 * dimensions:
        raise UserError(f"{path} is truncated in its header; get it again")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 0 in shape or math.prod(shape[1:]) > MAX_ROW_BYTES:
        raise UserError(f"{path} says that it holds {' x '.join(map(str, shape))} values; get it again")
    expected = len(header) + math.prod(shape)
    size = path.stat().st_size
    if size * MAX_DEFLATE_RATIO < expected if path.suffix == ".gz" else size != expected:
        raise UserError(f"{path} is {size} bytes, {expected} unpacked by its header: truncated or not IDX")
    return Idx(path, shape)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array of unsigned bytes as an IDX file, gzipped where the name ends in `.gz`."""
    header = struct.pack(f">I{array.ndim}I", UNSIGNED_BYTE << 8 | array.ndim, *array.shape)
    data = header + np.ascontiguousarray(array, np.uint8).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb"))
