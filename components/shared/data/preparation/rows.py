"""A row of facts on each image, from which the units of a dataset are joined without reading a pixel again.

In memory a structured array, on disk Parquet. The columns:

digest    BLAKE2b, 16 bytes, of the pixels (one channel if all are equal); of a picture that is kept, of its size, too
label     the number of the class
split     the number of the split in SPLITS
unit      the number of the unit
row       the place in the shard of unit and split
width, height    of the picture in the source; 0 if they are not known
dropped   whether a later split has the same image; only in the joined index
sums, squares    of the pixels of each channel; only before the units are joined
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.shared.core.files import new_file
from components.shared.data.dataset import Images
from components.shared.data.pictures.kept import DIGEST_BYTES, Kept

Rows = NDArray[np.void]
ROW = np.dtype(
    [
        ("digest", f"V{DIGEST_BYTES}"),
        ("label", "<i4"),
        ("split", "u1"),
        ("unit", "<i4"),
        ("row", "<i4"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("dropped", "u1"),
        ("channels", "u1"),  # 1, 3, or 0 for a picture that cannot be used
        ("bytes", "<i8"),  # of a picture that is kept as JPEG; only before its unit is written
        ("sums", "<u8", (3,)),
        ("squares", "<u8", (3,)),
    ]
)
INDEX_COLUMNS = ("digest", "label", "split", "unit", "row", "width", "height", "dropped")
_EXACT_PIXELS = 256  # 256 * 255 ** 2 < 2 ** 24
_MOMENT_PIXELS = 2**16  # summed at a time, in the CPU's cache
UNIT_COLUMNS = (*INDEX_COLUMNS[:-1], "sums", "squares")  # before the units are joined


def describe(rows: Rows, images: Images) -> list[memoryview]:
    """Fill in what the rows (N) say of the pixels of images (uint8, N x C x H x W); return each image's own pixels.

    An image whose channels are all equal has one.
    """
    rows["channels"] = _channels(images)
    plane = images.shape[2] * images.shape[3]
    data, stride = np.ascontiguousarray(images).reshape(-1).data, images.shape[1] * plane
    pieces = [data[i * stride : i * stride + n * plane] for i, n in enumerate(rows["channels"].tolist())]
    digests = b"".join([hashlib.blake2b(piece, digest_size=DIGEST_BYTES).digest() for piece in pieces])
    rows["digest"] = np.frombuffer(digests, f"V{DIGEST_BYTES}")
    rows["sums"], rows["squares"] = _moments(images)  # of one channel, those of all three
    return pieces


def describe_kept(rows: Rows, pictures: Sequence[Kept]) -> list[bytes]:
    """Fill in what the rows (N) say of pictures that are kept; return their files. The sums are those of the crops."""
    for row, kept in zip(rows, pictures, strict=True):
        row["channels"], row["bytes"], row["digest"] = len(kept.crop), len(kept.data), kept.digest
        (row["sums"],), (row["squares"],) = _moments(kept.crop[None])
    return [kept.data for kept in pictures]


def write_rows(path: Path, blocks: Iterable[Rows], columns: Sequence[str]) -> None:
    """Write blocks of rows to a Parquet file, a row group each."""
    schema = _table(np.zeros(0, ROW), columns).schema
    with new_file(path) as file, pq.ParquetWriter(file, schema) as writer:
        for rows in blocks:
            writer.write_table(_table(rows, columns))


def read_rows(path: Path) -> Rows:
    """Return the rows in a Parquet file; columns that it lacks are zeros."""
    table = pq.read_table(path).combine_chunks()
    rows = np.zeros(len(table), ROW)
    for name in table.column_names:
        field, _, channel = name.partition("_")
        values = table[name].to_numpy()
        if field == "digest":
            rows[field] = values.astype(f"V{DIGEST_BYTES}")
        elif channel:
            rows[field][:, int(channel)] = values
        else:
            rows[field] = values
    return rows


def _table(rows: Rows, columns: Sequence[str]) -> pa.Table:
    arrays: dict[str, Any] = {}
    for name in columns:
        values = np.ascontiguousarray(rows[name])
        if name == "digest":
            data = pa.py_buffer(values.tobytes())
            arrays[name] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), len(rows), [None, data])
        elif name == "dropped":
            arrays[name] = pa.array(values.astype(bool))
        elif values.ndim == 2:
            arrays |= {f"{name}_{channel}": pa.array(column) for channel, column in enumerate(values.T)}
        else:
            arrays[name] = pa.array(values)
    return pa.table(arrays)


def _channels(images: Images) -> NDArray[np.uint8]:
    if images.shape[1] == 1:
        return np.ones(len(images), np.uint8)
    line = images[:, :, images.shape[2] // 2]  # by which nearly all colour images are known
    channels = np.full(len(images), 3, np.uint8)
    likely = np.flatnonzero((line == line[:, :1]).all(axis=(1, 2)))
    gray = (images[likely] == images[likely, :1]).all(axis=(1, 2, 3))
    channels[likely[gray]] = 1
    return channels


def _moments(images: Images) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the sums of the pixels, and of their squares, of each image and channel (N x C), exactly.

    In float32, whose products are the fastest, as many pixels at a time as it adds without rounding.
    """
    planes = np.ascontiguousarray(images).reshape(-1, images.shape[2] * images.shape[3])
    sums, squares = np.empty((2, len(planes)), np.uint64)
    width = -(-planes.shape[1] // _EXACT_PIXELS) * _EXACT_PIXELS
    numbers = np.zeros((max(1, _MOMENT_PIXELS // width), width), np.float32)
    ones = np.ones(_EXACT_PIXELS, np.float32)
    for start in range(0, len(planes), len(numbers)):
        part = planes[start : start + len(numbers)]
        numbers[: len(part), : part.shape[1]] = part
        runs = numbers[: len(part)].reshape(len(part), -1, _EXACT_PIXELS)
        sums[start : start + len(part)] = np.vecdot(runs, ones).sum(axis=1, dtype=np.float64)
        squares[start : start + len(part)] = np.vecdot(runs, runs).sum(axis=1, dtype=np.float64)
    return sums.reshape(images.shape[:2]), squares.reshape(images.shape[:2])
