"""The prepared dataset on disk: writer and reader side by side.

A folder of NumPy shards `<split>-<number>.images.npy` (uint8, N x C x H x W) and `<split>-<number>.labels.npy`
(int64, N), and `dataset.json`, written last, which names classes, image shape, the training split's mean and standard
deviation per channel (of pixels scaled to 0..1), counts, every shard with its digest, and the digest of the content.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from components.shared.errors import UserError
from components.shared.files import Document, read_json, sha256_file, sha256_json, write_json

FORMAT = "torch2kubeflow/dataset"
SPLITS = ("train", "val", "test")
SHARD_BYTES = 128 * 2**20

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class _Array:
    """A `.npy` file of known shape, written in pieces and hashed on the way (no mapping: a full disk is an OSError)."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.path = path
        self.file: BinaryIO = open(path, "wb")  # noqa: SIM115 (closed by close)
        self.hash = hashlib.sha256()
        self.bytes = 0
        np.lib.format.write_array_header_1_0(
            self,  # type: ignore[arg-type]
            {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape},
        )

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.hash.update(view)
        self.bytes += len(view)
        return self.file.write(view)

    def close(self) -> Document:
        self.file.close()
        return {"path": self.path.name, "sha256": self.hash.hexdigest(), "bytes": self.bytes}


class _SplitWriter:
    """One split's shards, filled in order."""

    def __init__(self, folder: Path, name: str, count: int, image_shape: tuple[int, ...], shard_bytes: int) -> None:
        self.folder, self.name, self.count, self.image_shape = folder, name, count, image_shape
        self.shard_rows = max(1, shard_bytes // int(np.prod(image_shape)))
        self.written = 0
        self.shards: list[Document] = []
        self.open: tuple[_Array, _Array, int] | None = None
        self.pixels, self.labels = hashlib.sha256(), hashlib.sha256()

    def append(self, images: Images, labels: Labels) -> None:
        self.pixels.update(np.ascontiguousarray(images))
        self.labels.update(np.ascontiguousarray(labels))
        while len(labels):
            image_file, label_file, room = self.open or self._next_shard()
            n = min(room, len(labels))
            image_file.write(np.ascontiguousarray(images[:n]))
            label_file.write(np.ascontiguousarray(labels[:n]))
            images, labels = images[n:], labels[n:]
            self.written += n
            self.open = (image_file, label_file, room - n)
            if room == n:
                self.close_shard()

    def _next_shard(self) -> tuple[_Array, _Array, int]:
        rows = min(self.shard_rows, self.count - self.written)
        assert rows > 0, f"more than the {self.count} images announced for {self.name}"
        stem = f"{self.name}-{len(self.shards):05}"
        images = _Array(self.folder / f"{stem}.images.npy", (rows, *self.image_shape), np.uint8)
        return images, _Array(self.folder / f"{stem}.labels.npy", (rows,), np.int64), rows

    def close_shard(self) -> None:
        if self.open:
            images, labels, room = self.open
            assert room == 0, f"{self.name} ends {room} images short"
            self.shards.append({"images": images.close(), "labels": labels.close()})
            self.open = None


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
        self.splits = {name: _SplitWriter(folder, name, n, image_shape, shard_bytes) for name, n in counts.items()}
        self.class_counts = {name: np.zeros(len(self.classes), np.int64) for name in counts}
        self.histogram = np.zeros((image_shape[0], 256), np.int64)  # of the training split, per channel

    def append(self, split: str, images: Images, labels: Labels) -> None:
        """Add images (uint8, N x C x H x W) and labels (int64, N) to a split."""
        self.splits[split].append(images, labels)
        self.class_counts[split] += np.bincount(labels, minlength=len(self.classes))
        if split == "train":
            for channel, row in enumerate(self.histogram):
                row += np.bincount(images[:, channel].ravel(), minlength=256)

    def finish(self, **facts: Any) -> Document:
        """Write and return `dataset.json`; `facts` are further fields of it."""
        for writer in self.splits.values():
            writer.close_shard()
            assert writer.written == writer.count, f"{writer.name}: {writer.written} of {writer.count} images"
        mean, std = self._moments()
        document = {
            "format": FORMAT,
            "digest": self._digest(),
            "classes": self.classes,
            "image_shape": list(self.image_shape),
            "mean": mean,
            "std": std,
            "splits": {
                name: {"count": w.count, "class_counts": self.class_counts[name].tolist(), "shards": w.shards}
                for name, w in self.splits.items()
            },
            **facts,
        }
        write_json(self.folder / "dataset.json", document)
        return document

    def _moments(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, exact whatever the order of the images."""
        levels = np.arange(256) / 255
        share = self.histogram / self.histogram.sum(axis=1, keepdims=True)
        mean = share @ levels
        std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0))
        return mean.tolist(), [float(s) or 1.0 for s in std]  # a blank channel stays as it is

    def _digest(self) -> str:
        """Over the content alone: however it is cut into shards, and wherever it lies."""
        splits = {n: [w.count, w.pixels.hexdigest(), w.labels.hexdigest()] for n, w in self.splits.items()}
        return sha256_json({"classes": self.classes, "image_shape": self.image_shape, "splits": splits})


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset opened for reading."""

    folder: Path
    document: Document

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the labels."""
        return list(self.document["classes"])

    @property
    def digest(self) -> str:
        """The digest of the whole content."""
        return str(self.document["digest"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.document["image_shape"]
        return channels, height, width

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each split."""
        return {name: split["count"] for name, split in self.document["splits"].items()}

    def shards(self, split: str) -> Iterator[tuple[Images, Labels]]:
        """Yield each shard of a split, memory-mapped: images (uint8, N x C x H x W) and labels (int64, N).

        UserError where a shard is missing, or its shape, type or digest is not what the document says.
        """
        for shard in self.document["splits"][split]["shards"]:
            images = self._array(shard["images"])
            labels = self._array(shard["labels"])
            if images.dtype != np.uint8 or images.shape[1:] != self.image_shape or labels.shape != images.shape[:1]:
                raise UserError(f"{self.folder} holds a shard that does not fit dataset.json; prepare it again")
            yield images, labels

    def load(self, split: str) -> tuple[Images, Labels]:
        """Read a whole split into memory: images (uint8, N x C x H x W) and labels (int64, N)."""
        shards = list(self.shards(split))
        return np.concatenate([images for images, _ in shards]), np.concatenate([labels for _, labels in shards])

    def _array(self, entry: Document) -> NDArray[Any]:
        path = self.folder / Path(entry["path"]).name
        if not path.is_file() or path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
            raise UserError(f"{path} is missing or differs from its digest in dataset.json; prepare it again")
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise UserError(f"{path} is no NumPy array ({error}); prepare it again") from None
        return array


def open_dataset(path: str | Path) -> Dataset:
    """Open the dataset in folder `path`; UserError where its document is missing or of another format."""
    return Dataset(Path(path), read_json(Path(path) / "dataset.json", FORMAT))
