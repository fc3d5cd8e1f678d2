"""Raw data on disk, as `download` leaves it: writer and reader side by side.

A folder of few large files (IDX pairs, CIFAR's binary batches, or archives of pictures) and `raw.json`, written last,
which names source, kind, classes, counts per split, and every file with its digest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.core.files import Document, read_json, sha256_file, sha256_json, write_json
from components.shared.core.schema import (
    are_names,
    check_fields,
    is_count,
    is_file,
    is_list,
    is_map,
    is_number,
    is_sha256,
    is_text,
)
from components.shared.data.sources.archive import members
from components.shared.data.sources.folder_layout import NO_SPLITS, Layout, is_picture
from components.shared.data.sources.idx import open_idx

FORMAT = "torch2kubeflow/raw"
FILE = r"[\w-][\w.-]{0,99}"  # the name of a file, as the step download gives it
CIFAR_BATCHES = {"data_batch_1": "train", "data_batch_2": "train", "data_batch_3": "train", "data_batch_4": "train"}
CIFAR_BATCHES |= {"data_batch_5": "train", "test_batch": "test"}
CIFAR_SHAPE = (3, 32, 32)
MAX_PICTURE_BYTES = 256 * 2**20
MAX_CHUNK_BYTES = 64 * 2**20
SPLITS = ("train", "val", "test", NO_SPLITS)


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

        UserError where a file is missing or damaged, or holds a label or a picture of no class, or a huge picture.
        """
        for file in self.document["files"]:
            path = self.folder / file["path"]
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
                if member.size > MAX_PICTURE_BYTES:
                    raise UserError(
                        f"{member.name} has {member.size:,} bytes, at most {MAX_PICTURE_BYTES:,}; shrink it"
                    )
                split, label = self._locate(layout, labels, member.name)
                if pending.names and (pending.split != split or pending.is_full(size)):
                    yield pending.chunk()
                    pending = _Pending()
                with member.open() as content:
                    pending.add(split, label, member.name, content.read())
        if pending.names:
            yield pending.chunk()

    def _locate(self, layout: Layout, labels: Mapping[str, int], name: str) -> tuple[str, int]:
        """The split and the label of a picture by its name."""
        try:
            split, class_name = layout.locate(name)
            return split, labels[class_name]
        except LookupError:
            raise UserError(f"{self.source} holds {name!r}, in no class of raw.json; download it again") from None


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
    """Open the raw data in folder `path`; UserError where its document is missing, or not as `write_raw` writes it."""
    place = Path(path) / "raw.json"
    document = read_json(place, FORMAT)
    check_fields(document, _FIELDS, str(place), "download it again")
    return Raw(Path(path), document)


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


def _are_pairs(value: object, files: Sequence[Document]) -> bool:
    """Files of images and labels by split."""
    names = [file["path"] for file in files]
    return is_map(value, lambda pair: is_map(pair, lambda name: name in names) and pair.keys() == {"images", "labels"})


def _is_layout(value: object) -> bool:
    match value:
        case {"root": root, "has_splits": bool(), **rest}:
            return is_count(root) and not rest
    return False


# In this order: each rule may rest on those above it.
_FIELDS: dict[str, Callable[[Document], bool]] = {
    "name": lambda d: is_text(d["name"]),
    "source": lambda d: is_text(d["source"]),
    "digest": lambda d: is_sha256(d["digest"]),
    "seconds": lambda d: is_map(d["seconds"], is_number),
    "classes": lambda d: are_names(d["classes"]),
    "counts": lambda d: is_map(d["counts"], is_count) and d["counts"].keys() <= set(SPLITS),
    "files": lambda d: is_list(d["files"], lambda file: is_file(file, FILE)) and len(d["files"]) > 0,
    "kind": lambda d: (
        (d["kind"] == "idx" and _are_pairs(d.get("splits"), d["files"]) and d["splits"].keys() <= set(SPLITS))
        or d["kind"] == "cifar"
        or (d["kind"] == "pictures" and _is_layout(d.get("layout")))
    ),
}
