"""Raw data on disk, as `download` leaves it: writer and reader side by side.

A folder of few large files (IDX pairs, CIFAR's binary batches, or archives of pictures) and `raw.json`, written last,
which names source, kind, classes, counts per split, and every file with its digest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from components.shared.archive import members
from components.shared.errors import UserError
from components.shared.files import Document, read_json, sha256_file, sha256_json, write_json
from components.shared.idx import open_idx
from components.shared.layout import Layout, is_picture

FORMAT = "torch2kubeflow/raw"
CIFAR_BATCHES = {"data_batch_1": "train", "data_batch_2": "train", "data_batch_3": "train", "data_batch_4": "train"}
CIFAR_BATCHES |= {"data_batch_5": "train", "test_batch": "test"}
CIFAR_SHAPE = (3, 32, 32)
MAX_PICTURE_BYTES = 256 * 2**20
MAX_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Chunk:
    """Some samples of one split: already decoded (`images`), or as they were found (`encoded`).

    `split` is train, val, test, or all where the source has no splits; labels are int64 (n), images uint8 (n, C, H, W).
    """

    split: str
    labels: NDArray[np.int64]
    names: list[str]
    images: NDArray[np.uint8] | None = None
    encoded: list[bytes] | None = None


@dataclass(frozen=True)
class Raw:
    """Raw data opened for reading."""

    folder: Path
    document: Document

    @property
    def name(self) -> str:
        """The data set's name, for people."""
        return str(self.document["name"])

    @property
    def source(self) -> str:
        """Where the data came from."""
        return str(self.document["source"])

    @property
    def kind(self) -> str:
        """`idx`, `cifar` or `pictures`."""
        return str(self.document["kind"])

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the labels."""
        return list(self.document["classes"])

    @property
    def digest(self) -> str:
        """The digest of the content."""
        return str(self.document["digest"])

    @property
    def counts(self) -> dict[str, int]:
        """The number of samples of each split."""
        return dict(self.document["counts"])

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield all samples in chunks of at most `size`, always in the same order, in constant memory.

        UserError where a file is missing or damaged, or holds a label that is no class.
        """
        for file in self.document["files"]:
            path = self.folder / Path(file["path"]).name
            if not path.is_file() or sha256_file(path) != file["sha256"]:
                raise UserError(f"{path} is missing or differs from its digest in raw.json; download it again")
        read = {"idx": self._idx_chunks, "cifar": self._cifar_chunks, "pictures": self._picture_chunks}
        for chunk in read[self.kind](size):
            if len(chunk.labels) and chunk.labels.max() >= len(self.classes):
                raise UserError(
                    f"{self.source} has the label {chunk.labels.max()} at {chunk.names[0]}, "
                    f"but only {len(self.classes)} classes; get it again"
                )
            yield chunk

    def _idx_chunks(self, size: int) -> Iterator[Chunk]:
        for split, pair in self.document["splits"].items():
            images = open_idx(self.folder / pair["images"], 3)
            labels = open_idx(self.folder / pair["labels"], 1)
            if images.shape[0] != labels.shape[0]:
                raise UserError(
                    f"{pair['images']} holds {images.shape[0]} images and {pair['labels']} {labels.shape[0]} labels; "
                    "they do not belong together"
                )
            start = 0
            for pixels, marks in zip(images.rows(size), labels.rows(size), strict=True):
                names = [f"{split}/{start + i}" for i in range(len(marks))]
                yield Chunk(split, marks.astype(np.int64), names, images=pixels[:, None])
                start += len(marks)

    def _cifar_chunks(self, size: int) -> Iterator[Chunk]:
        for member in members(self.folder / self.document["files"][0]["path"]):
            batch = member.name.rsplit("/", 1)[-1].removesuffix(".bin")
            if batch in CIFAR_BATCHES:
                with member.open() as file:
                    yield from _cifar_records(batch, file, size)

    def _picture_chunks(self, size: int) -> Iterator[Chunk]:
        layout = Layout(**self.document["layout"])
        labels = {name: label for label, name in enumerate(self.classes)}
        pending = _Pending()
        for file in self.document["files"]:
            for member in members(self.folder / file["path"]):
                if member.is_folder or not is_picture(member.name):
                    continue
                split, name = layout.locate(member.name)
                if pending.names and (pending.split != split or pending.is_full(size)):
                    yield pending.chunk()
                    pending = _Pending()
                with member.open() as content:
                    pending.add(split, labels[name], member.name, content.read())
        if pending.names:
            yield pending.chunk()


@dataclass
class _Pending:
    """Pictures on their way into a chunk."""

    split: str = ""
    labels: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, split: str, label: int, name: str, content: bytes) -> None:
        self.split = split
        self.labels.append(label)
        self.names.append(name)
        self.encoded.append(content)
        self.size += len(content)

    def is_full(self, size: int) -> bool:
        return len(self.names) >= size or self.size >= MAX_CHUNK_BYTES

    def chunk(self) -> Chunk:
        return Chunk(self.split, np.array(self.labels, np.int64), self.names, encoded=self.encoded)


def open_raw(path: str | Path) -> Raw:
    """Open the raw data in folder `path`; UserError where its document is missing or of another format."""
    return Raw(Path(path), read_json(Path(path) / "raw.json", FORMAT))


def write_raw(
    folder: Path,
    *,
    name: str,
    source: str,
    version: str,
    kind: str,
    classes: Sequence[str],
    counts: Mapping[str, int],
    files: Sequence[str],
    seconds: float,
    **facts: Any,
) -> None:
    """Write `raw.json` beside the files that it names; `facts` are what the kind's reader needs besides."""
    entries = [{"path": f, "sha256": sha256_file(folder / f), "bytes": (folder / f).stat().st_size} for f in files]
    content = {"kind": kind, "classes": list(classes), "files": [[e["path"], e["sha256"]] for e in entries], **facts}
    document = {
        "format": FORMAT,
        "name": name,
        "source": source,
        "version": version,
        "kind": kind,
        "classes": list(classes),
        "counts": dict(counts),
        "files": entries,
        "digest": sha256_json(content),
        "seconds": {"download": seconds},
        **facts,
    }
    write_json(folder / "raw.json", document)


def _cifar_records(batch: str, file: IO[bytes], size: int) -> Iterator[Chunk]:
    """Records of one label byte and 3,072 pixels, channel by channel (Krizhevsky, cs.toronto.edu/~kriz/cifar.html)."""
    record = 1 + int(np.prod(CIFAR_SHAPE))
    start = 0
    while data := file.read(record * size):
        if len(data) % record:
            raise UserError(f"CIFAR's {batch} is truncated: {len(data) % record} bytes of a record; get it again")
        rows = np.frombuffer(data, np.uint8).reshape(-1, record)
        names = [f"{batch}/{start + i}" for i in range(len(rows))]
        images = rows[:, 1:].reshape(-1, *CIFAR_SHAPE)
        yield Chunk(CIFAR_BATCHES[batch], rows[:, 0].astype(np.int64), names, images=images)
        start += len(rows)
