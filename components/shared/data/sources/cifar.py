"""CIFAR-10's binary batches in their archive (Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html).

A record is a byte for the label and 3,072 for the pixels, channel by channel.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.data.sources.archive import members
from components.shared.data.sources.schemes import RawDescription

BATCHES = {**{f"data_batch_{number}": "train" for number in range(1, 6)}, "test_batch": "test"}  # name -> split
COUNTS = {"train": 50_000, "test": 10_000}
SHAPE = (3, 32, 32)


class Records(NamedTuple):
    """Some records of a batch, from record number `start`: images are uint8 (n, C, H, W), labels int64 (n)."""

    batch: str
    start: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def describe_cifar(name: str, classes: Sequence[str], files: Sequence[str]) -> RawDescription:
    """Describe the archive of CIFAR-10."""
    return {"name": name, "kind": "cifar", "classes": classes, "counts": COUNTS, "files": files}


def read_cifar(archive: Path, size: int) -> Iterator[Records]:
    """Yield the records, at most `size` at a time. Raises UserError if a batch is truncated."""
    for member in members(archive):
        batch = member.name.rsplit("/", 1)[-1].removesuffix(".bin")
        if batch in BATCHES:
            with member.open() as file:
                yield from _read_batch(batch, file, size)


def _read_batch(batch: str, file: IO[bytes], size: int) -> Iterator[Records]:
    record = 1 + math.prod(SHAPE)
    start = 0
    while data := file.read(record * size):
        if len(data) % record:
            cut = f"CIFAR's {batch} is truncated: {len(data) % record} bytes of a record"
            raise UserError(cut, "replace the archive with an intact copy")
        rows = np.frombuffer(data, np.uint8).reshape(-1, record)
        yield Records(batch, start, rows[:, 1:].reshape(-1, *SHAPE), rows[:, 0].astype(np.int64))
        start += len(rows)
