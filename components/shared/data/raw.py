"""Raw data on disk, as it was downloaded: writer and reader side by side.

A folder of few large files (IDX pairs, CIFAR's binary batches, archives of pictures, or samples as samples/stored.py
has them) and `raw.json`, written last, which lists source, kind, classes, counts per split, and every file with its
digest.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, model_validator

from components.shared.core.document import Count, Document, Items, NamesIfAny, Number, Part, Sha256, require
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file, sha256_json
from components.shared.data.archives.member import opened_picture
from components.shared.data.archives.names import plain
from components.shared.data.layout.folder_layout import NO_SPLITS, Layout
from components.shared.data.layout.label_table import LABELS, read_labels
from components.shared.data.layout.left_out import LeftOut
from components.shared.data.samples.stored import UNLABELLED, StoredSample, read_samples
from components.shared.data.sources import cifar
from components.shared.data.sources.archive import members
from components.shared.data.sources.idx import open_idx
from components.shared.data.sources.schemes import Kind, RawDescription

MAX_PICTURE_BYTES = 256 * 2**20
MAX_CHUNK_BYTES = 64 * 2**20
AGAIN = "download it again"

Picture = TypeVar("Picture", bound=tuple[Any, ...])  # whose last field is its bytes

FileName = Annotated[str, StringConstraints(pattern=r"^[\w-][\w.-]{0,99}$")]  # as sources name their files
SplitName = Annotated[str, StringConstraints(pattern=r"^(train|val|test|all)$")]


class RawFile(Part):
    """A file in the folder."""

    path: FileName
    sha256: Sha256
    bytes: Count


class Pair(Part):
    """The names of the files with a split's images and labels."""

    images: FileName
    labels: FileName


class RawDocument(Document):
    """`raw.json`: what the files of raw data hold, and where they come from."""

    FORMAT = "torch2kubeflow/raw"
    REMEDY = AGAIN

    name: str  # of the data set, for people
    source: str  # the name, URI or path that the data came from
    version: str  # of the source
    kind: Kind
    classes: NamesIfAny  # in the order of the labels; none if no picture has a label
    counts: dict[SplitName, Count]
    files: Annotated[Items[RawFile], Field(min_length=1)]
    digest: Sha256  # of the content
    seconds: dict[str, Number]  # that each step took
    splits: dict[SplitName, Pair] | None = None  # of kind idx
    layout: Layout | None = None  # of kind pictures
    left_out: LeftOut | None = None  # of kinds pictures and samples; null if it is not known
    source_sha256: Sha256 | None = None  # of a downloaded archive

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        require("splits", self.kind != "idx" or self.splits is not None)
        require("layout", self.kind != "pictures" or self.layout is not None)
        names = {file.path for file in self.files}
        for name, pair in (self.splits or {}).items():
            require(f"splits.{name}", {pair.images, pair.labels} <= names)
        return self


@dataclass(frozen=True)
class Chunk:
    """Some samples of one split: already decoded (`images`), or the bytes of picture files (`encoded`).

    `split` is train, val, test, or all if the source has no splits; labels are int64 (n), UNLABELLED for a picture
    that has none; images are uint8 (n, C, H, W).
    """

    split: str
    labels: NDArray[np.int64]
    names: list[str]
    images: NDArray[np.uint8] | None = None
    encoded: list[bytes] | None = None


_State = tuple[int, int, int]  # of a file: inode, size and the time of its last change


def _state_of(path: Path) -> _State | None:
    """Return what changes with a file's content; None if there is no such file."""
    if not path.is_file():
        return None
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Raw:
    """Raw data opened for reading."""

    folder: Path
    document: RawDocument
    _intact: dict[str, _State] = field(default_factory=dict, repr=False, compare=False)  # of each file, when hashed

    @property
    def name(self) -> str:
        """Return the data set's name, for people."""
        return self.document.name

    @property
    def source(self) -> str:
        """Return the name, URI or path that the data came from."""
        return self.document.source

    @property
    def kind(self) -> Kind:
        """Return `idx`, `cifar`, `pictures` or `samples`."""
        return self.document.kind

    @property
    def classes(self) -> list[str]:
        """Return the class names, in the order of the labels."""
        return self.document.classes

    @property
    def digest(self) -> str:
        """Return the digest of the content."""
        return self.document.digest

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of samples of each split."""
        return self.document.counts

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield all samples in chunks of at most `size`, always in the same order, in constant memory.

        Raises UserError if a file is missing or damaged, or holds a label or a picture of no class, or a huge picture.
        """
        for file in self.document.files:
            self._check(file)
        read = {
            "idx": self._idx_chunks,
            "cifar": self._cifar_chunks,
            "pictures": self._picture_chunks,
            "samples": self._sample_chunks,
        }
        for chunk in read[self.kind](size):
            if len(chunk.labels) and chunk.labels.max() >= len(self.classes):
                raise UserError(
                    f"{self.source} has the label {chunk.labels.max()} at {chunk.names[0]}, "
                    f"but only {len(self.classes)} classes",
                    "correct the labels, or give an intact copy",
                )
            yield chunk

    def _check(self, file: RawFile) -> None:
        """Raise UserError if a file is missing or damaged; one that has not changed since is not hashed again."""
        path = self.folder / file.path
        state = _state_of(path)
        if state is None or (self._intact.get(file.path) != state and sha256_file(path) != file.sha256):
            raise UserError(f"{path} is missing or differs from its digest in raw.json", AGAIN)
        self._intact[file.path] = state

    def _idx_chunks(self, size: int) -> Iterator[Chunk]:
        for split, pair in (self.document.splits or {}).items():
            images = open_idx(self.folder / pair.images, 3)
            labels = open_idx(self.folder / pair.labels, 1)
            if images.shape[0] != labels.shape[0]:
                raise UserError(
                    f"{pair.images} holds {images.shape[0]} images and {pair.labels} {labels.shape[0]} labels",
                    "give files that belong together",
                )
            start = 0
            for pixels, marks in zip(images.rows(size), labels.rows(size), strict=True):
                names = [f"{split}/{start + i}" for i in range(len(marks))]
                yield Chunk(split, marks.astype(np.int64), names, images=pixels[:, None])
                start += len(marks)

    def _cifar_chunks(self, size: int) -> Iterator[Chunk]:
        for batch, start, images, labels in cifar.read_cifar(self.folder / self.document.files[0].path, size):
            names = [f"{batch}/{start + i}" for i in range(len(labels))]
            yield Chunk(cifar.BATCHES[batch], labels, names, images=images)

    def _picture_chunks(self, size: int) -> Iterator[Chunk]:
        return encoded_chunks(self._pictures(), size)

    def _pictures(self) -> Iterator[StoredSample]:
        layout = self.document.layout
        assert layout
        labels = {plain(name): label for label, name in enumerate(self.classes)}
        table = read_labels(self.folder / LABELS) if layout.in_table else {}
        for file in self.document.files:
            for member in members(self.folder / file.path) if file.path != LABELS else ():
                if layout.is_unlabelled(member.name) or (layout.in_table and member.name not in table):
                    continue
                with opened_picture(member) as content:
                    if not content:
                        continue
                    if member.size > MAX_PICTURE_BYTES:
                        raise UserError(
                            f"{member.name} has {member.size:,} bytes, more than {MAX_PICTURE_BYTES:,}", "shrink it"
                        )
                    split, label = self._locate(layout, table, labels, member.name)
                    yield StoredSample(split, label, member.name, content.read())

    def _sample_chunks(self, size: int) -> Iterator[Chunk]:
        files = [file.path for file in self.document.files]
        return encoded_chunks(read_samples(self.folder, files, self.counts), size)

    def _locate(
        self, layout: Layout, table: Mapping[str, str], labels: Mapping[str, int], name: str
    ) -> tuple[str, int]:
        """Return the split and the label of a picture by its name."""
        try:
            split, class_name = layout.place(name, table)
            return split, labels[class_name]
        except LookupError:
            if layout.is_optional:
                return NO_SPLITS, UNLABELLED
            raise UserError(f"{self.source} holds {name!r}, in no class of raw.json", AGAIN) from None


def encoded_chunks(samples: Iterable[StoredSample], size: int) -> Iterator[Chunk]:
    """Yield picture files in chunks of one split, each as many as `in_batches` has in a list."""
    for split, same in groupby(samples, lambda sample: sample.split):
        for batch in in_batches(same, size):
            labels = np.array([sample.label for sample in batch], np.int64)
            names, encoded = [sample.name for sample in batch], [sample.content for sample in batch]
            yield Chunk(split, labels, names, encoded=encoded)


def in_batches(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """Yield pictures in lists of at most `size`; one that has MAX_CHUNK_BYTES takes no further picture."""
    batch: list[Picture] = []
    held = 0
    for picture in pictures:
        batch.append(picture)
        held += len(picture[-1])
        if len(batch) >= size or held >= MAX_CHUNK_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def open_raw(path: str | Path) -> Raw:
    """Open the raw data in folder `path`. Raises UserError if its document is missing or does not fit the format."""
    return Raw(Path(path), RawDocument.read(Path(path) / "raw.json"))


def write_raw(
    folder: Path, *, source: str, version: str, seconds: float, **description: Unpack[RawDescription]
) -> None:
    """Write `raw.json` next to the files that the description lists."""
    kind, classes = description["kind"], list(description["classes"])
    files = [
        RawFile(path=name, sha256=sha256_file(folder / name), bytes=(folder / name).stat().st_size)
        for name in description["files"]
    ]
    known = ("name", "kind", "classes", "counts", "files")
    facts: dict[str, Any] = {field: value for field, value in description.items() if field not in known}
    content = {"kind": kind, "classes": classes, "files": [[file.path, file.sha256] for file in files], **facts}
    content.pop("left_out", None)  # the same pictures are the same data
    document = RawDocument(
        name=description["name"],
        source=source,
        version=version,
        kind=kind,
        classes=classes,
        counts=dict(description["counts"]),
        files=files,
        digest=sha256_json(content),
        seconds={"download": seconds},
        **facts,
    )
    document.write(folder / "raw.json")
