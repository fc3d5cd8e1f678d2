"""The prepared dataset on disk: writer and reader side by side.

A folder of NumPy shards `<split>-<number>.images.npy` (uint8, N x C x H x W) and `<split>-<number>.labels.npy`
(int64, N), and `dataset.json`, written last, which holds classes, image shape, the training split's mean and standard
deviation per channel (of pixels scaled to 0..1), counts, every shard with its digest, the digest of each split's
content and of the whole, and the checksum of the document itself. The field `shards`, an s3:// address, makes a dataset
remote: its document is alone in the folder, and its shards are objects `<sha256>.npy` at that address.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from io import FileIO
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.core.files import Document, read_json, sha256_json, sha256_without, write_json
from components.shared.core.npy import npy_bytes, npy_header
from components.shared.core.schema import (
    check_fields,
    has,
    is_count,
    is_file,
    is_list,
    is_map,
    is_sha256,
    is_size,
    is_text,
)
from components.shared.data.shards import StoredShards, open_shard
from components.shared.storage.endpoint import parse_uri

FORMAT = "torch2kubeflow/dataset"
FILE_NAME = r"(train|val|test)-\d{5,9}\.(images|labels)\.npy"  # of shards
SPLITS = ("train", "val", "test")
SHARD_BYTES = 128 * 2**20
AGAIN = "prepare the dataset again"

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class Origin(TypedDict, total=False):
    """The fields of `dataset.json` that describe where a dataset comes from; its digest does not depend on them."""

    raw_digest: str
    parameters: Document  # of the preparation
    code_version: str
    duplicates: Document
    bad_images: list[Document]
    samples_sha256: str
    name: str
    source: str
    seconds: Mapping[str, float]  # that each step took
    shards: str  # of a remote dataset


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
        self.moments = _Moments(image_shape[0])

    def append(self, split: str, images: Images, labels: Labels) -> None:
        """Add images (uint8, N x C x H x W) and labels (int64, N) to a split."""
        self.splits[split].append(images, labels)
        self.class_counts[split] += np.bincount(labels, minlength=len(self.classes))
        if split == "train":
            self.moments.add(images)

    def finish(self, **origin: Unpack[Origin]) -> Document:
        """Write and return `dataset.json`."""
        for writer in self.splits.values():
            assert writer.written == writer.count, f"{writer.name}: {writer.written} of {writer.count} images"
        mean, std = self.moments.mean_and_std()
        digests = {name: self._digest(writer) for name, writer in self.splits.items()}
        document = {
            "format": FORMAT,
            "digest": sha256_json(digests),
            "classes": self.classes,
            "image_shape": list(self.image_shape),
            "mean": mean,
            "std": std,
            "splits": {
                name: {
                    "digest": digests[name],
                    "count": writer.count,
                    "class_counts": self.class_counts[name].tolist(),
                    "shards": writer.shards,
                }
                for name, writer in self.splits.items()
            },
            **origin,
        }
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
        self.shard_rows = shard_rows
        self.written = 0
        self.shards: list[Document] = []
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
            self.shards.append({"count": rows, "images": image_file.entry(), "labels": label_file.entry()})
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

    def entry(self) -> Document:
        return {"path": self.path.name, "sha256": self.sha256.hexdigest(), "bytes": self.bytes}


class _Moments:
    """Mean and standard deviation per channel from integer sums: exact, in any order of the images."""

    def __init__(self, channels: int) -> None:
        self.count, self.sums, self.squares = 0, [0] * channels, [0] * channels

    def add(self, images: Images) -> None:
        self.count += images[:, 0].size
        for channel in range(len(self.sums)):
            plane = images[:, channel]
            self.sums[channel] += int(plane.sum(dtype=np.int64))
            self.squares[channel] += int(np.square(plane, dtype=np.uint16).sum(dtype=np.int64))

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        n = max(1, self.count)
        mean = [total / (255 * n) for total in self.sums]
        variance = [(n * q - s * s) / (255 * n) ** 2 for s, q in zip(self.sums, self.squares, strict=True)]
        return mean, [math.sqrt(v) or 1.0 for v in variance]  # 1 leaves a constant channel unscaled


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset opened for reading."""

    folder: Path
    document: Document

    @property
    def classes(self) -> list[str]:
        """Return the class names, in the order of the labels."""
        return list(self.document["classes"])

    @property
    def digest(self) -> str:
        """Return the digest of the whole content."""
        return str(self.document["digest"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        channels, height, width = self.document["image_shape"]
        return channels, height, width

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of images of each split."""
        return {name: self.document["splits"][name]["count"] for name in SPLITS}

    @property
    def is_remote(self) -> bool:
        """Return whether the shards are in a store and not in the folder."""
        return "shards" in self.document

    @cached_property
    def _stored(self) -> StoredShards:
        return StoredShards(self.document["shards"])

    def files(self) -> Iterator[Document]:
        """Yield the description of each shard's file: `path` in the folder, `sha256`, and size in `bytes`."""
        for split in SPLITS:
            for shard in self.document["splits"][split]["shards"]:
                yield from (shard["images"], shard["labels"])

    def shards(self, split: str) -> Iterator[tuple[Images, Labels]]:
        """Yield each shard of a split, memory-mapped: images (uint8, N x C x H x W) and labels (int64, N).

        Raises CorruptDataError if a shard is missing or differs from its description in the document.
        """
        for shard in self.document["splits"][split]["shards"]:
            images, labels = self._images(shard), self._array(shard["labels"], (shard["count"],), np.int64)
            if labels.min() < 0 or labels.max() >= len(self.classes):
                raise CorruptDataError(f"{self.folder} holds labels that name no class of dataset.json", AGAIN)
            yield images, labels

    def take(self, split: str, numbers: Sequence[int]) -> Images:
        """Return some images of a split by their numbers (uint8, N x C x H x W); only their shards are opened."""
        wanted = np.asarray(numbers, np.int64)
        images = np.empty((len(wanted), *self.image_shape), np.uint8)
        start = 0
        for shard in self.document["splits"][split]["shards"]:
            inside = np.flatnonzero((start <= wanted) & (wanted < start + shard["count"]))
            if len(inside):
                images[inside] = self._images(shard)[wanted[inside] - start]
            start += shard["count"]
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

    def _images(self, shard: Document) -> Images:
        return self._array(shard["images"], (shard["count"], *self.image_shape), np.uint8)

    def _array(self, entry: Document, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        header = npy_header(shape, dtype)
        with self._open(entry) as file:
            if file.read(len(header)) != header or entry["bytes"] != npy_bytes(shape, dtype):
                raise CorruptDataError(f"{file.name} is not a NumPy array of shape {shape}", AGAIN)
            return np.memmap(file, np.dtype(dtype).newbyteorder("<"), "r", len(header), shape)

    def _open(self, entry: Document) -> FileIO:
        if self.is_remote:
            return self._stored.open(entry["sha256"], entry["bytes"])
        path = self.folder / entry["path"]
        file = open_shard(path, entry["sha256"], entry["bytes"])
        if not file:
            raise CorruptDataError(f"{path} is missing or differs from its digest in dataset.json", AGAIN)
        return file


def open_dataset(path: str | Path) -> Dataset:
    """Open the dataset in folder `path`. Raises UserError if its document is missing, changed or of another format."""
    file = Path(path) / "dataset.json"
    document = read_json(file, FORMAT)
    check_document(document, str(file))
    return Dataset(Path(path), document)


def check_document(document: Document, name: str) -> None:
    """Check the document in the file `name` against the format. Raises UserError for the first field that breaks it."""
    rules = {**_FIELDS, "shards": _is_address} if "shards" in document else _FIELDS
    check_fields(document, rules, name, AGAIN)


def write_document(folder: Path, document: Document) -> Document:
    """Write `dataset.json` and return its content: the document with its checksum."""
    content = {**document, "checksum": sha256_without(document, "checksum")}
    write_json(folder / "dataset.json", content)
    return content


def _is_split(split: Any, classes: int) -> bool:
    fields = {
        "digest": is_sha256,
        "count": is_count,
        "class_counts": lambda counts: is_list(counts, is_count, classes),
        "shards": lambda shards: is_list(shards, _is_shard),
    }
    if not has(**fields)(split):
        return False
    return bool(split["count"] == sum(split["class_counts"]) == sum(shard["count"] for shard in split["shards"]))


def _are_figures(value: object, channels: int) -> bool:
    return is_list(value, lambda figure: type(figure) is float and 0 <= figure <= 1, channels)


def _is_untouched(document: Document) -> bool:
    return bool(document["checksum"] == sha256_without(document, "checksum"))


def _is_address(document: Document) -> bool:
    try:
        return is_text(document["shards"]) and bool(parse_uri(document["shards"])[0])
    except UserError:
        return False


_is_shard_file = partial(is_file, pattern=FILE_NAME)
_is_shard = has(count=is_size, images=_is_shard_file, labels=_is_shard_file)
# In this order: each rule may rely on those above it.
_FIELDS: dict[str, Callable[[Document], bool]] = {
    "checksum": _is_untouched,
    "digest": lambda d: is_sha256(d["digest"]),
    "classes": lambda d: is_list(d["classes"], is_text) and len(d["classes"]) > 0,
    "image_shape": lambda d: is_list(d["image_shape"], is_size, 3),
    "mean": lambda d: _are_figures(d["mean"], d["image_shape"][0]),
    "std": lambda d: _are_figures(d["std"], d["image_shape"][0]) and min(d["std"]) > 0,
    "splits": lambda d: (
        is_map(d["splits"], lambda split: _is_split(split, len(d["classes"])))
        and set(d["splits"]) == set(SPLITS)
        and d["digest"] == sha256_json({name: split["digest"] for name, split in d["splits"].items()})
    ),
}
