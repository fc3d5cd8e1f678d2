"""The end of a preparation: from the rows of all units to the document, whatever prepared them and in which order."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from components.shared.core.files import sha256_file, sha256_json
from components.shared.core.npy import write_npy
from components.shared.data.dataset import (
    INDEX,
    SPLITS,
    DatasetDocument,
    Origin,
    Shard,
    ShardFile,
    Split,
    digest_of_splits,
)
from components.shared.data.pictures.kept import DIGEST_BYTES
from components.shared.data.preparation.rows import INDEX_COLUMNS, Rows, write_rows
from components.shared.data.preparation.unit import Unit

TRAIN = SPLITS.index("train")
INDEX_ROWS = 32_768  # of a row group of the index, at least
_IN_DIGEST = np.dtype([("digest", f"V{DIGEST_BYTES}"), ("label", "<i8")])


@dataclass(frozen=True)
class Content:
    """What the units hold together: the shards of each split, and what is found of the images that stay."""

    image_shape: tuple[int, int, int]
    shards: dict[str, list[Shard]]
    counts: NDArray[np.int64]  # split x class
    found: NDArray[np.int64]  # of each class, with those that are dropped
    dropped: NDArray[np.int64]  # of each split
    digests: dict[str, str]
    mean: list[float]
    std: list[float]


def settle(folder: Path, units: Sequence[Unit], joined: Iterable[Rows], size: tuple[int, int], classes: int) -> Content:
    """Read the joined rows of units whose shards are in a folder; write the index, and what is dropped of each shard.

    `size` is the images' height and width; `classes` their number. What is dropped whole loses its files.
    """
    tally = _Tally(classes)
    dropped = _Dropped(folder)
    write_rows(folder / INDEX, _grouped(_seen(joined, tally, dropped)), INDEX_COLUMNS)
    channels = max((unit.channels for unit in units), default=1)
    shape = (channels, *size)
    shards = {split: [shard for unit in units if (shard := dropped.left_of(unit, split, channels))] for split in SPLITS}
    mean, std = tally.mean_and_std(channels, math.prod(size))
    digests = {split: digest.hexdigest() for split, digest in zip(SPLITS, tally.digests, strict=True)}
    return Content(shape, shards, tally.counts, tally.found, tally.dropped, digests, mean, std)


def document_of(folder: Path, content: Content, classes: Sequence[str], **origin: Unpack[Origin]) -> DatasetDocument:
    """Return the document of a dataset."""
    splits = {
        name: Split(
            digest=_digest(content, name, classes),
            count=int(counts.sum()),
            class_counts=counts.tolist(),
            shards=content.shards[name],
        )
        for name, counts in zip(SPLITS, content.counts, strict=True)
    }
    return DatasetDocument(
        digest=digest_of_splits(splits),
        classes=list(classes),
        image_shape=list(content.image_shape),
        mean=content.mean,
        std=content.std,
        splits=splits,
        index_sha256=sha256_file(folder / INDEX),
        **origin,
    )


def _digest(content: Content, split: str, classes: Sequence[str]) -> str:
    """Return the digest of a split's content, which depends on neither its shards nor the other splits."""
    return sha256_json(
        {
            "classes": list(classes),
            "image_shape": list(content.image_shape),
            "count": int(content.counts[SPLITS.index(split)].sum()),
            "images": content.digests[split],
        }
    )


def _seen(joined: Iterable[Rows], tally: "_Tally", dropped: "_Dropped") -> Iterator[Rows]:
    for rows in joined:
        tally.add(rows)
        dropped.add(rows)
        yield rows


def _grouped(blocks: Iterable[Rows]) -> Iterator[Rows]:
    """Yield the rows of several units together: a row group of each would take memory and disk of its own."""
    waiting: list[Rows] = []
    for rows in blocks:
        waiting.append(rows)
        if sum(map(len, waiting)) >= INDEX_ROWS:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


class _Tally:
    """Sums over the images that stay: exact, of any number of images."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((len(SPLITS), classes), np.int64)
        self.found = np.zeros(classes, np.int64)
        self.dropped = np.zeros(len(SPLITS), np.int64)
        self.digests = [hashlib.sha256() for _ in SPLITS]  # over each image's digest and label, in order
        self._sums, self._squares = [0] * 3, [0] * 3

    def add(self, rows: Rows) -> None:
        self.found += np.bincount(rows["label"], minlength=len(self.found))
        for split, digest in enumerate(self.digests):
            own = rows[rows["split"] == split]
            stays = own[own["dropped"] == 0]
            self.counts[split] += np.bincount(stays["label"], minlength=self.counts.shape[1])
            self.dropped[split] += len(own) - len(stays)
            content = np.empty(len(stays), _IN_DIGEST)
            content["digest"], content["label"] = stays["digest"], stays["label"]
            digest.update(content.tobytes())
            if split == TRAIN:
                self._sums = _added(self._sums, stays["sums"])
                self._squares = _added(self._squares, stays["squares"])

    def mean_and_std(self, channels: int, pixels: int) -> tuple[list[float], list[float]]:
        """Return both for each channel of the training images, of pixels scaled to 0..1."""
        n = max(1, int(self.counts[TRAIN].sum()) * pixels)
        mean = [total / (255 * n) for total in self._sums]
        variance = [(n * q - s * s) / (255 * n) ** 2 for s, q in zip(self._sums, self._squares, strict=True)]
        std = [math.sqrt(v) or 1.0 for v in variance]  # 1 leaves a constant channel unscaled
        return mean[:channels], std[:channels]


def _added(totals: list[int], values: NDArray[np.uint64]) -> list[int]:
    return [total + int(value) for total, value in zip(totals, values.sum(axis=0), strict=True)]


class _Dropped:
    """The images of each shard that are left out, in files next to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[tuple[int, str], tuple[ShardFile, int]] = {}

    def add(self, rows: Rows) -> None:
        """Add the rows of a unit."""
        for number, split in enumerate(SPLITS):
            places = rows["row"][(rows["split"] == number) & (rows["dropped"] == 1)].astype(np.int64)
            if len(places):
                unit = int(rows["unit"][0])
                path = self._folder / f"{split}-{unit:05}.dropped.npy"
                write_npy(path, places)
                entry = ShardFile(path=path.name, sha256=sha256_file(path), bytes=path.stat().st_size)
                self._files[unit, split] = entry, len(places)

    def left_of(self, unit: Unit, split: str, channels: int) -> Shard | None:
        """Return a unit's shard of a split without what is dropped, for a dataset of so many channels."""
        shard = unit.shards.get(split)
        if shard is None:
            return None
        is_narrow = unit.channels != channels and not shard.offsets  # a JPEG says itself how many channels it has
        changes: dict[str, Any] = {"channels": unit.channels} if is_narrow else {}
        if found := self._files.get((unit.number, split)):
            entry, count = found
            if count == shard.count:
                for file in (*shard.files, entry):
                    (self._folder / file.path).unlink(missing_ok=True)
                return None
            changes |= {"count": shard.count - count, "dropped": entry}
        return shard.model_copy(update=changes)
