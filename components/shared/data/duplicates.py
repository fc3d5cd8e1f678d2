"""Exact copies of an image, found by digest in bounded memory.

Rows are distributed to bucket files by digest, so that all copies of an image are in one bucket, which fits in memory.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.shared.data.dataset import SPLITS, Copies
from components.shared.data.decode_buffer import Rows

BUCKET_ROWS = 100_000

_ENTRY = np.dtype([("digest", "<u8", (2,)), ("number", "<i8"), ("label", "<i4"), ("split", "u1")])


class Duplicates:
    """Finds the copies that leak between splits: an image stays in the last of train, val and test that has it.

    After `resolve`, `counts` (split x class) are the images that stay. Copies within one split stay, too.
    """

    def __init__(self, folder: Path, num_images: int, num_classes: int) -> None:
        self.counts = np.zeros((len(SPLITS), num_classes), np.int64)
        self.dropped = np.zeros(len(SPLITS), np.int64)
        self._within_split = np.zeros(len(SPLITS), np.int64)  # further copies that stay
        self._repeated = self._conflicting = 0
        self._added = 0
        self._buckets = [folder / f"bucket-{n:05}" for n in range(1 + num_images // BUCKET_ROWS)]
        for path in self._buckets:
            path.write_bytes(b"")

    def add(self, rows: Rows, splits: NDArray[np.uint8]) -> None:
        """Add the next images: their rows (N) and the splits (N) that they are assigned to."""
        entries = np.zeros(len(rows), _ENTRY)
        entries["digest"], entries["label"], entries["split"] = rows["digest"], rows["label"], splits
        entries["number"] = np.arange(self._added, self._added + len(rows))
        self._added += len(rows)
        bucket = (rows["digest"][:, 0] % len(self._buckets)).astype(np.int64)
        ends = np.cumsum(np.bincount(bucket, minlength=len(self._buckets)))
        parts = np.split(entries[np.argsort(bucket, kind="stable")], ends[:-1])
        for path, part in zip(self._buckets, parts, strict=True):
            with open(path, "ab") as file:
                file.write(part.tobytes())

    def resolve(self) -> Iterator[NDArray[np.int64]]:
        """Yield the numbers of the images to drop, bucket by bucket."""
        for path in self._buckets:
            entries = np.fromfile(path, _ENTRY)
            path.unlink()
            if len(entries):
                yield self._resolve(entries)

    def copies(self) -> Copies:
        """Return the figures for `dataset.json`."""
        return Copies(
            repeated_images=self._repeated,
            of_these_with_conflicting_labels=self._conflicting,
            copies_dropped=dict(zip(SPLITS, self.dropped.tolist(), strict=True)),
            copies_kept_within_split=dict(zip(SPLITS, self._within_split.tolist(), strict=True)),
        )

    def _resolve(self, entries: NDArray[np.void]) -> NDArray[np.int64]:
        entries = entries[np.lexsort(entries["digest"].T)]
        split, label, digest = entries["split"], entries["label"], entries["digest"]
        starts = np.flatnonzero(np.r_[True, (digest[1:] != digest[:-1]).any(axis=1)])
        sizes = np.diff(starts, append=len(entries))
        last = np.maximum.reduceat(split, starts)
        stays = split == np.repeat(last, sizes)
        self._repeated += int((sizes > 1).sum())
        self._conflicting += int((np.minimum.reduceat(label, starts) != np.maximum.reduceat(label, starts)).sum())
        self.dropped += np.bincount(split[~stays], minlength=len(SPLITS))
        self._within_split += np.bincount(split[stays], minlength=len(SPLITS)) - np.bincount(
            last, minlength=len(SPLITS)
        )
        np.add.at(self.counts, (split[stays], label[stays]), 1)
        numbers: NDArray[np.int64] = entries["number"][~stays]
        return numbers
