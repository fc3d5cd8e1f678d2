"""The prepared dataset on disk: writer and reader side by side.

A folder of NumPy shards `<split>-<number>.images.npy` (uint8, N x C x H x W) and `<split>-<number>.labels.npy`
(int64, N), and `dataset.json`, written last, which holds classes, image shape, the training split's mean and standard
deviation per channel (of pixels scaled to 0..1), counts, every shard with its digest, the digest of each split's
content and of the whole, and the checksum of the document itself. The field `shards`, an s3:// address, makes a dataset
remote: its document is alone in the folder, and its shards are objects `<sha256>.npy` at that address.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Required, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from components.shared.core.document import (
    Count,
    ImageShape,
    Items,
    JsonObject,
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
from components.shared.data.moments import Moments
from components.shared.data.shard_cache import StoredShards, open_shard
from components.shared.storage.endpoint import parse_uri

SPLITS = ("train", "val", "test")
SHARD_BYTES = 128 * 2**20
AGAIN = "prepare the dataset again"

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def _digest_of(splits: Mapping[str, "Split"]) -> str:
    return sha256_json({name: split.digest for name, split in splits.items()})


def _has_bucket(uri: str) -> str:
    if not parse_uri(uri)[0]:
        raise ValueError("no bucket")
    return uri


class ShardFile(Part):
    """A file of a shard."""

    path: Annotated[str, StringConstraints(pattern=r"^(train|val|test)-[0-9]{5,9}\.(images|labels)\.npy$")]
    sha256: Sha256
    bytes: Count


class Shard(Part):
    """Some images of a split, and their labels."""

    count: Size
    images: ShardFile
    labels: ShardFile


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
    value_range: ValueRange | None = None  # if there are pictures of numbers of more than 8 bits
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
        require("splits", self.digest == _digest_of(self.splits))
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
    name: Required[str]
    source: str
    seconds: Required[dict[str, float]]


class DatasetWriter:
    """Writes a dataset in pieces, in constant memory: shards first, `dataset.json` last.

    `counts` holds the number of images of each split, known before the first is appended; `image_shape` is (C, H, W).
    """

    def __init__(
        self,
        folder: Path,
        *,
        classes: Sequence[str],
        image_shape: tuple[int, int, int],
        counts: Mapping[str, int],
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.folder, self.classes, self.image_shape = folder, list(classes), image_shape
        shard_rows = max(1, shard_bytes // math.prod(image_shape))
        self.splits = {name: _SplitWriter(folder, name, counts[name], image_shape, shard_rows) for name in SPLITS}
        self.class_counts = {name: np.zeros(len(self.classes), np.int64) for name in SPLITS}
        self.moments = Moments(image_shape[0])

    def append(self, split: str, images: Images, labels: Labels) -> None:
        """Add images (uint8, N x C x H x W) and labels (int64, N) to a split."""
        self.splits[split].append(images, labels)
        self.class_counts[split] += np.bincount(labels, minlength=len(self.classes))
        if split == "train":
            self.moments.add(images)

    def finish(self, **origin: Unpack[Origin]) -> DatasetDocument:
        """Write and return `dataset.json`."""
        for writer in self.splits.values():
            assert writer.written == writer.count, f"{writer.name}: {writer.written} of {writer.count} images"
        mean, std = self.moments.mean_and_std()
        splits = {
            name: Split(
                digest=self._digest(writer),
                count=writer.count,
                class_counts=self.class_counts[name].tolist(),
                shards=writer.shards,
            )
            for name, writer in self.splits.items()
        }
        document = DatasetDocument(
            digest=_digest_of(splits),
            classes=self.classes,
            image_shape=list(self.image_shape),
            mean=mean,
            std=std,
            splits=splits,
            **origin,
        )
        return write_document(self.folder, document)

    def _digest(self, split: "_SplitWriter") -> str:
        """Return the digest of a split's content, which depends on neither its shards nor the other splits."""
        return sha256_json(
            {
                "classes": self.classes,
                "image_shape": list(self.image_shape),
                "count": split.count,
                "pixels": split.pixels.hexdigest(),
                "labels": split.labels.hexdigest(),
            }
        )


class _SplitWriter:
    """One split's shards, filled in order."""

    def __init__(self, folder: Path, name: str, count: int, image_shape: tuple[int, ...], shard_rows: int) -> None:
        self.folder, self.name, self.count, self.image_shape = folder, name, count, image_shape
        self.shard_rows, self.written = shard_rows, 0
        self.shards: list[Shard] = []
        self.current: tuple[_ArrayFile, _ArrayFile] | None = None
        self.pixels, self.labels = hashlib.sha256(), hashlib.sha256()

    def append(self, images: Images, labels: Labels) -> None:
        while len(labels):
            start = self.written % self.shard_rows
            rows = min(self.shard_rows, self.count - self.written + start)
            fitting = min(rows - start, len(labels))
            assert fitting > 0, f"more than the {self.count} images announced for {self.name}"
            self._write(rows, images[:fitting], labels[:fitting])
            images, labels = images[fitting:], labels[fitting:]

    def _write(self, rows: int, images: Images, labels: Labels) -> None:
        if self.current is None:
            stem = f"{self.name}-{len(self.shards):05}"
            self.current = (
                _ArrayFile(self.folder / f"{stem}.images.npy", npy_header((rows, *self.image_shape), np.uint8)),
                _ArrayFile(self.folder / f"{stem}.labels.npy", npy_header((rows,), np.int64)),
            )
        for file, digest, array in zip(self.current, (self.pixels, self.labels), (images, labels), strict=True):
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            file.write(data)
            digest.update(data)
        self.written += len(labels)
        if self.written % self.shard_rows == 0 or self.written == self.count:
            image_file, label_file = self.current
            self.shards.append(Shard(count=rows, images=image_file.entry(), labels=label_file.entry()))
            self.current = None


class _ArrayFile:
    """A file that is hashed while it is written, and not mapped, so that a full disk is an OSError."""

    def __init__(self, path: Path, header: bytes) -> None:
        self.path = path
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        path.write_bytes(b"")
        self.write(header)

    def write(self, data: bytes | memoryview) -> None:
        with open(self.path, "ab") as file:
            file.write(data)
        self.sha256.update(data)
        self.bytes += len(data)

    def entry(self) -> ShardFile:
        return ShardFile(path=self.path.name, sha256=self.sha256.hexdigest(), bytes=self.bytes)


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
    def _stored(self) -> StoredShards:
        return StoredShards(self.document.shards)

    def files(self) -> Iterator[ShardFile]:
        """Yield the description of each shard's file."""
        for split in SPLITS:
            for shard in self.document.splits[split].shards:
                yield from (shard.images, shard.labels)

    def shards(self, split: str) -> Iterator[tuple[Images, Labels]]:
        """Yield each shard of a split, memory-mapped: images (uint8, N x C x H x W) and labels (int64, N).

        Raises CorruptDataError if a shard is missing or differs from its description in the document.
        """
        for shard in self.document.splits[split].shards:
            images, labels = self._images(shard), self._array(shard.labels, (shard.count,), np.int64)
            if labels.min() < 0 or labels.max() >= len(self.classes):
                raise CorruptDataError(f"{self.folder} holds labels that name no class of dataset.json", AGAIN)
            yield images, labels

    def take(self, split: str, numbers: Sequence[int]) -> Images:
        """Return some images of a split by their numbers (uint8, N x C x H x W); only their shards are opened."""
        wanted = np.asarray(numbers, np.int64)
        images = np.empty((len(wanted), *self.image_shape), np.uint8)
        start = 0
        for shard in self.document.splits[split].shards:
            inside = np.flatnonzero((start <= wanted) & (wanted < start + shard.count))
            if len(inside):
                images[inside] = self._images(shard)[wanted[inside] - start]
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
            images[start:stop], labels[start:stop] = shard_images, shard_labels
            start = stop
        return images, labels

    def _images(self, shard: Shard) -> Images:
        return self._array(shard.images, (shard.count, *self.image_shape), np.uint8)

    def _array(self, entry: ShardFile, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        header = npy_header(shape, dtype)
        with self._open(entry) as file:
            if file.read(len(header)) != header or entry.bytes != npy_bytes(shape, dtype):
                raise CorruptDataError(f"{file.name} is not a NumPy array of shape {shape}", AGAIN)
            return np.memmap(file, np.dtype(dtype).newbyteorder("<"), "r", len(header), shape)

    def _open(self, entry: ShardFile) -> FileIO:
        if self.is_remote:
            return self._stored.open(entry.sha256, entry.bytes)
        path = self.folder / entry.path
        file = open_shard(path, entry.sha256, entry.bytes)
        if not file:
            raise CorruptDataError(f"{path} is missing or differs from its digest in dataset.json", AGAIN)
        return file


def open_dataset(path: str | Path) -> Dataset:
    """Open the dataset in folder `path`. Raises UserError if its document is missing, changed or of another format."""
    return Dataset(Path(path), DatasetDocument.read(Path(path) / "dataset.json"))


def write_document(folder: Path, document: DatasetDocument) -> DatasetDocument:
    """Write `dataset.json` and return it: the document with its checksum."""
    sealed = document.sealed()
    sealed.write(folder / "dataset.json")
    return sealed
