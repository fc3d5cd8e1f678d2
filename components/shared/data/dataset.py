"""The prepared dataset on disk, which components/shared/data/preparation/ writes.

A folder of NumPy shards `<split>-<unit>.images.npy` (uint8, N x C x H x W) and `<split>-<unit>.labels.npy` (int64, N),
and `dataset.json`, written last, which holds classes, image shape, the training split's mean and standard deviation per
channel (of pixels scaled to 0..1), counts, every shard with its digest, the digest of each split's content and of the
whole, and the checksum of the document itself. A shard may have one channel in a dataset of three, and images that are
left out, whose places are in `<split>-<unit>.dropped.npy` (int64). With `keep: jpeg`, the file of images has the JPEGs
of the pictures, one after the other (uint8), and `<split>-<unit>.offsets.npy` (int64, N + 1) where each of them begins;
an image is the centre crop of one. `index.parquet` has a row for each image: its
digest, label, split, unit, place in the shard, and whether it is left out. The digest of a split is over the digests
and labels of its images, so that it can be joined from those of its parts.

The field `shards`, an s3:// address, makes a dataset remote: its document is alone in the folder, and its shards are
objects `<sha256>.npy` at that address. Datasets of an earlier format have no index and no units: their shards are
numbered within their split, and the digest of a split is over its pixels.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Required, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from components.shared.core.document import (
    Count,
    ImageShape,
    Items,
    JsonObject,
    Keep,
    Names,
    Number,
    Part,
    SealedDocument,
    Sha256,
    Share,
    Size,
    ValueRange,
    require,
)
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.core.files import sha256_json
from components.shared.core.npy import npy_bytes, npy_header
from components.shared.data.layout.left_out import BadImage, LeftOut
from components.shared.data.shard_cache import StoredShards, open_shard
from components.shared.data.shard_images import KeptImages, Places, ShardImages
from components.shared.storage.endpoint import parse_uri

SPLITS = ("train", "val", "test")
SPLIT_ROWS = 65_536  # the split depends on it, because random numbers are drawn block by block; a multiple of each unit
INDEX, SAMPLES = "index.parquet", "samples.png"
AGAIN = "prepare the dataset again"

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Readable = ShardImages | KeptImages


def digest_of_splits(splits: Mapping[str, "Split"]) -> str:
    """Return the digest of a dataset, given its splits."""
    return sha256_json({name: split.digest for name, split in splits.items()})


def _has_bucket(uri: str) -> str:
    if not parse_uri(uri)[0]:
        raise ValueError("no bucket")
    return uri


class ShardFile(Part):
    """A file of a shard."""

    path: Annotated[
        str, StringConstraints(pattern=r"^(train|val|test)-[0-9]{5,9}\.(images|labels|offsets|dropped)\.npy$")
    ]
    sha256: Sha256
    bytes: Count


class Shard(Part):
    """Some images of a split, one after the other in the source, and their labels."""

    count: Size  # without those that are left out
    images: ShardFile
    labels: ShardFile
    offsets: ShardFile | None = None  # of kept pictures: where each begins in the file, and where the last one ends
    channels: Size | None = None  # of the file, if the dataset has more
    dropped: ShardFile | None = None  # the places of those that are left out, if there are any

    @property
    def files(self) -> list[ShardFile]:
        """Return all files."""
        return [self.images, self.labels, *filter(None, (self.offsets, self.dropped))]


class Split(Part):
    """A split: the digest of its content, its number of images, also of each class, and its shards in order."""

    digest: Sha256
    count: Count
    class_counts: Items[Count]
    shards: Items[Shard]

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        require("class_counts", self.count == sum(self.class_counts))
        require("shards", self.count == sum(shard.count for shard in self.shards))
        return self


class Copies(Part):
    """The images that were found several times, and how many of their copies were dropped or kept in each split."""

    repeated_images: Count
    of_these_with_conflicting_labels: Count
    copies_dropped: dict[str, Count]
    copies_kept_within_split: dict[str, Count]


class DatasetDocument(SealedDocument):
    """`dataset.json`: what a dataset holds, where its shards are, and what it was prepared from."""

    FORMAT = "torch2kubeflow/dataset"
    MAX_BYTES = 2**26  # of 140,000 shards, or 105,000 that leave out some images
    REMEDY = AGAIN

    digest: Sha256
    classes: Names
    image_shape: ImageShape
    mean: list[Share]  # of each channel of the train split, of pixels scaled to 0..1
    std: list[Annotated[Share, Field(gt=0)]]
    splits: dict[str, Split]
    raw_digest: Sha256 | None = None
    parameters: JsonObject | None = None  # of the preparation
    code_version: str | None = None
    duplicates: Copies | None = None
    bad_images: Items[BadImage] | None = None
    left_out: LeftOut | None = None  # of a source of pictures; null if it is not known
    samples_sha256: Sha256 = ""
    index_sha256: Sha256 = ""  # none in an earlier format
    value_range: ValueRange | None = None  # if there are pictures of numbers of more than 8 bits
    keep: Keep = "raw"
    name: str
    source: str | None = None
    seconds: dict[str, Number]  # that each step took
    shards: Annotated[str, AfterValidator(_has_bucket)] = ""  # of a remote dataset
    checksum: str = ""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        require("mean", len(self.mean) == self.image_shape[0])
        require("std", len(self.std) == self.image_shape[0])
        require("splits", self.splits.keys() == set(SPLITS))
        for name, split in self.splits.items():
            require(f"splits.{name}.class_counts", len(split.class_counts) == len(self.classes))
            are_kept = {shard.offsets is not None for shard in split.shards}
            require(f"splits.{name}.shards", are_kept <= {self.keep == "jpeg"})
        require("splits", self.digest == digest_of_splits(self.splits))
        return self


class Origin(TypedDict, total=False):
    """The fields of `dataset.json` that describe where a dataset comes from; its digest does not depend on them."""

    raw_digest: str
    parameters: JsonObject
    code_version: str
    duplicates: Copies
    bad_images: list[BadImage]
    left_out: LeftOut | None
    samples_sha256: str
    value_range: ValueRange
    keep: Keep
    name: Required[str]
    source: str
    seconds: Required[dict[str, float]]


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset opened for reading."""

    folder: Path
    document: DatasetDocument

    @property
    def classes(self) -> list[str]:
        """Return the class names, in the order of the labels."""
        return self.document.classes

    @property
    def digest(self) -> str:
        """Return the digest of the whole content."""
        return self.document.digest

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        channels, height, width = self.document.image_shape
        return channels, height, width

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of images of each split."""
        return {name: self.document.splits[name].count for name in SPLITS}

    @property
    def is_remote(self) -> bool:
        """Return whether the shards are in a store and not in the folder."""
        return bool(self.document.shards)

    @cached_property
    def stored(self) -> StoredShards:
        """Return the shards in the store, of a remote dataset."""
        return StoredShards(self.document.shards)

    def files(self) -> Iterator[ShardFile]:
        """Yield the description of each shard's file."""
        for split in SPLITS:
            for shard in self.document.splits[split].shards:
                yield from shard.files

    def shards(self, split: str) -> Iterator[tuple[Readable, Labels]]:
        """Yield each shard of a split: its images, memory-mapped, and labels (int64, N).

        Raises CorruptDataError if a shard is missing or differs from its description in the document.
        """
        for shard in self.document.splits[split].shards:
            yield self.open_shard(shard)

    def open_shard(self, shard: Shard) -> tuple[Readable, Labels]:
        """Return a shard as `shards` does."""
        places = self._places(shard)
        return self._images(shard, places), self._labels(shard, places)

    def batches(self, split: str, size: int) -> Iterator[tuple[Images, Labels]]:
        """Yield the images (uint8, N x C x H x W) and labels (int64, N) of a split in order, `size` at a time."""
        pending: list[tuple[Images, Labels]] = []
        missing = size
        for images, labels in self.shards(split):
            start = 0
            while start < len(labels):
                part = slice(start, start + missing)
                pending.append((images[part], labels[part]))
                start, missing = part.stop, missing - len(pending[-1][1])
                if not missing:
                    yield _joined(pending)
                    pending, missing = [], size
        if pending:
            yield _joined(pending)

    def labels(self, split: str) -> Labels:
        """Return the labels of a split (int64, N)."""
        return np.concatenate([np.empty(0, np.int64), *self.shard_labels(split)])

    def shard_labels(self, split: str) -> Iterator[Labels]:
        """Yield the labels of each shard of a split (int64, N), whose images are not opened."""
        for shard in self.document.splits[split].shards:
            yield self.open_labels(shard)

    def open_labels(self, shard: Shard) -> Labels:
        """Return the labels of a shard (int64, N). Raises CorruptDataError as `shards` does."""
        return self._labels(shard, self._places(shard))

    def take(self, split: str, numbers: Sequence[int]) -> Images:
        """Return some images of a split by their numbers (uint8, N x C x H x W); only their shards are opened."""
        wanted = np.asarray(numbers, np.int64)
        images = np.empty((len(wanted), *self.image_shape), np.uint8)
        start = 0
        for shard in self.document.splits[split].shards:
            inside = np.flatnonzero((start <= wanted) & (wanted < start + shard.count))
            if len(inside):
                images[inside] = self._images(shard, self._places(shard))[wanted[inside] - start]
            start += shard.count
        return images

    def load(self, split: str) -> tuple[Images, Labels]:
        """Read a whole split into memory: images (uint8, N x C x H x W) and labels (int64, N).

        Raises UserError if it does not fit.
        """
        count = self.counts[split]
        try:
            images, labels = np.empty((count, *self.image_shape), np.uint8), np.empty(count, np.int64)
        except (MemoryError, ValueError):  # the latter beyond the address space
            gib = count * math.prod(self.image_shape) / 2**30
            raise UserError(
                f"the {split} split of {self.folder} takes {gib:,.1f} GiB, more memory than there is",
                "give more memory, or prepare smaller images",
            ) from None
        start = 0
        for shard_images, shard_labels in self.shards(split):
            stop = start + len(shard_labels)
            images[start:stop], labels[start:stop] = shard_images[:], shard_labels
            start = stop
        return images, labels

    def _labels(self, shard: Shard, places: Places) -> Labels:
        labels: Labels = self._array(shard.labels, (_rows(shard),), np.int64)[places]
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise CorruptDataError(f"{self.folder} holds labels that name no class of dataset.json", AGAIN)
        return labels

    def _images(self, shard: Shard, places: Places) -> Readable:
        if shard.offsets:
            offsets = self._array(shard.offsets, (_rows(shard) + 1,), np.int64)
            if offsets[0] or (np.diff(offsets) <= 0).any():
                raise CorruptDataError(f"{self.folder} holds offsets that do not rise", AGAIN)
            return KeptImages(
                self._array(shard.images, (int(offsets[-1]),), np.uint8), offsets, places, self.image_shape
            )
        shape = (shard.channels or self.image_shape[0], *self.image_shape[1:])
        return ShardImages(self._array(shard.images, (_rows(shard), *shape), np.uint8), places, self.image_shape[0])

    def _places(self, shard: Shard) -> Places:
        """Return the places of a shard's images that stay: all, or those that are not in the file."""
        if not shard.dropped:
            return slice(None)
        count = _dropped_count(shard.dropped)
        dropped = self._array(shard.dropped, (count,), np.int64)
        stays = np.ones(shard.count + count, bool)
        if count and (dropped.min() < 0 or dropped.max() >= len(stays)):
            raise CorruptDataError(f"{self.folder} leaves out images that are not in their shard", AGAIN)
        stays[dropped] = False
        places = np.flatnonzero(stays)
        if len(places) != shard.count:
            raise CorruptDataError(f"{self.folder} leaves out an image twice", AGAIN)
        return places

    def _array(self, entry: ShardFile, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        header = npy_header(shape, dtype)
        with self._open(entry) as file:
            if file.read(len(header)) != header or entry.bytes != npy_bytes(shape, dtype):
                raise CorruptDataError(f"{file.name} is not a NumPy array of shape {shape}", AGAIN)
            mapped = np.memmap(file, np.dtype(dtype).newbyteorder("<"), "r", len(header), shape)
            return mapped.view(np.ndarray)  # whose indexing takes a fraction of the time

    def _open(self, entry: ShardFile) -> FileIO:
        if self.is_remote:
            return self.stored.open(entry.sha256, entry.bytes)
        path = self.folder / entry.path
        file = open_shard(path, entry.sha256, entry.bytes)
        if not file:
            raise CorruptDataError(f"{path} is missing or differs from its digest in dataset.json", AGAIN)
        return file


def _joined(parts: Sequence[tuple[Images, Labels]]) -> tuple[Images, Labels]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _rows(shard: Shard) -> int:
    """Return the number of images in a shard's files."""
    return shard.count + (_dropped_count(shard.dropped) if shard.dropped else 0)


def _dropped_count(dropped: ShardFile) -> int:
    return max(0, dropped.bytes - npy_bytes((0,), np.int64)) // 8


def earlier_digest(data: Dataset) -> str:
    """Return the digest that the earlier format gave to such a dataset: over all pixels, one after the other."""
    digests = {}
    for name in SPLITS:
        pixels, labels = hashlib.sha256(), hashlib.sha256()
        for shard_images, shard_labels in data.shards(name):
            pixels.update(np.ascontiguousarray(shard_images[:]).data)
            labels.update(np.ascontiguousarray(shard_labels, "<i8").data)
        shape, count = list(data.image_shape), data.counts[name]
        found = {"pixels": pixels.hexdigest(), "labels": labels.hexdigest()}
        digests[name] = sha256_json({"classes": data.classes, "image_shape": shape, "count": count, **found})
    return sha256_json(digests)


def open_dataset(path: str | Path) -> Dataset:
    """Open the dataset in folder `path`. Raises UserError if its document is missing, changed or of another format."""
    return Dataset(Path(path), DatasetDocument.read(Path(path) / "dataset.json"))


def write_document(folder: Path, document: DatasetDocument) -> DatasetDocument:
    """Write `dataset.json` and return it: the document with its checksum."""
    sealed = document.sealed()
    sealed.write(folder / "dataset.json")
    return sealed
