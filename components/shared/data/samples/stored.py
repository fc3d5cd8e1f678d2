"""Samples as raw data holds them, by split: the pictures in tar shards, their labels in an array. Writer and reader.

The pictures of split `train` are in train-00000.tar, train-00001.tar, ..., under names that people know, and their
labels, in the same order, in train-labels.npy (int32; UNLABELLED for a picture that has none).
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.core.npy import npy_bytes, npy_header
from components.shared.data.archives.member import Member
from components.shared.data.archives.shards import PictureShards
from components.shared.data.sources.archive import members

UNLABELLED = -1
SPLITS = ("train", "val", "test", "all")
BLOCK = 1 << 16  # labels that are in memory at the same time


class StoredSample(NamedTuple):
    """A picture file with its split and label."""

    split: str
    label: int
    name: str
    content: bytes


class SampleWriter:
    """Writes samples to a folder, in the order in which they come, split by split."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._opened = folder, ExitStack()
        self._shards: dict[str, PictureShards] = {}
        self._labels: dict[str, list[int]] = {}
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()

    def add(self, split: str, label: int, name: str, content: bytes | Member) -> None:
        """Write a sample, whose content is there."""
        assert isinstance(content, bytes)
        if split not in self._shards:
            self._shards[split] = self._opened.enter_context(PictureShards(self._folder, split))
            self._labels[split] = []
        self._shards[split].add(name, len(content), io.BytesIO(content))
        self._labels[split].append(label)
        self.counts[split] += 1
        if len(self._labels[split]) >= BLOCK:
            self._flush(split)

    def finish(self, numbers: NDArray[np.int32]) -> list[str]:
        """Write the labels, a label x as numbers[x], and return the names of all files."""
        self._opened.close()
        of_all = np.append(numbers, np.int32(UNLABELLED))  # which has the index -1, too
        for split in self._shards:
            self._flush(split)
            with open(self._folder / labels_name(split), "wb") as file:
                file.write(npy_header((self.counts[split],), np.int32))
                with open(self._unnumbered(split), "rb") as labels:
                    while (block := np.fromfile(labels, "<i4", BLOCK)).size:
                        file.write(of_all[block].astype("<i4").tobytes())
            self._unnumbered(split).unlink()
        splits = [split for split in SPLITS if split in self._shards]
        return [name for split in splits for name in (*self._shards[split].names, labels_name(split))]

    def _flush(self, split: str) -> None:
        with open(self._unnumbered(split), "ab") as file:
            file.write(np.array(self._labels[split], "<i4").tobytes())
        self._labels[split] = []

    def _unnumbered(self, split: str) -> Path:
        return self._folder / f"{split}-labels.partial"


def labels_name(split: str) -> str:
    """Return the name of the file with the labels of a split."""
    return f"{split}-labels.npy"


def read_samples(folder: Path, files: Sequence[str], counts: Mapping[str, int]) -> Iterator[StoredSample]:
    """Yield the samples, split by split. Raises UserError if pictures and labels do not belong together."""
    for split in SPLITS:
        if labels_name(split) not in files:
            continue
        labels = _labels(folder / labels_name(split), counts.get(split, 0))
        for name in files:
            for member in members(folder / name) if name.startswith(f"{split}-") and name.endswith(".tar") else ():
                label = next(labels, None)
                if label is None:
                    raise UserError(f"{folder} has more pictures than labels of the split {split}", "download it again")
                with member.open() as content:
                    yield StoredSample(split, label, member.name, content.read())
        if next(labels, None) is not None:
            raise UserError(f"{folder} has more labels than pictures of the split {split}", "download it again")


def _labels(path: Path, count: int) -> Iterator[int]:
    header = npy_header((count,), np.int32)
    with open(path, "rb") as file:
        if file.read(len(header)) != header or path.stat().st_size != npy_bytes((count,), np.int32):
            raise UserError(f"{path} does not hold {count:,} labels", "download it again")
        while (block := np.fromfile(file, "<i4", BLOCK)).size:
            yield from block.tolist()
