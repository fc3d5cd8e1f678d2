"""Parquet files with the bytes of pictures, as Hugging Face publishes data sets."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.shared.core.errors import UserError
from components.shared.data.archives.kinds import ArchiveFile
from components.shared.data.archives.member import Member
from components.shared.data.archives.names import plain
from components.shared.data.archives.ranged import RangedFile
from components.shared.data.layout.folder_layout import NO_SPLITS
from components.shared.data.layout.left_out import WITHOUT_BYTES, Tally
from components.shared.data.layout.reading import Reading
from components.shared.data.layout.split_names import NO_LABELS
from components.shared.data.samples.classes import Classes, Label
from components.shared.data.samples.description import Content, Found, Sample
from components.shared.data.samples.parquet_columns import Columns, Schema
from components.shared.data.samples.parquet_files import described, opened_parquet, parquet_rows, places_of_rows
from components.shared.data.samples.webdataset import columns_of

ROWS = 16  # that are in memory at the same time
MAX_NAME = 200  # letters of the name that a picture had in another place
NOT_NUMBERED = -1  # Hugging Face's label of pictures that have none


@contextmanager
def saved(file: Member, folder: Path) -> Iterator[Path]:
    """Have a file of a source on this machine's disk."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "table"
        file.save(path)
        yield path


def holds_pictures(path: ArchiveFile, named: str, reading: Reading) -> bool:
    """Return whether a file has bytes of pictures, and no paths. Raises UserError if it cannot be read."""
    with opened_parquet(path, named) as file:
        return Schema(named, file.schema_arrow, columns_of(reading)).may_hold_pictures()


def parquet_pictures(
    files: Iterable[Member], splits: Mapping[str, str], source: str, reading: Reading, left_out: Tally, folder: Path
) -> Found:
    """Return the pictures in Parquet files, with the split of each file by its name.

    Raises UserError, naming `source`, if the columns of the first are not clear; later if another has others.
    """
    files = list(files)
    with saved(files[0], folder) as path, opened_parquet(path, f"{source}: {files[0].name}") as file:
        schema = Schema(f"{source}: {files[0].name}", file.schema_arrow, columns_of(reading))
        columns = schema.columns(reading.needs_labels)
    reader = _Reader(source, columns, reading, left_out, described_at=files[0].name)
    classes = Classes(source, columns.classes, f"the metadata of {files[0].name}")
    return Found(reader.samples(files, splits, folder), classes, left_out)


def list_rows(
    files: Sequence[Member], splits: Mapping[str, str], source: str, reading: Reading, left_out: Tally
) -> Found:
    """Return where the pictures in Parquet files are, as `parquet_pictures` returns what is in them."""
    with opened_parquet(_ranged(files[0]), f"{source}: {files[0].name}") as file:
        schema = Schema(f"{source}: {files[0].name}", file.schema_arrow, columns_of(reading))
        columns = schema.columns(reading.needs_labels)
    reader = _Reader(source, columns, reading, left_out, described_at=files[0].name)
    classes = Classes(source, columns.classes, f"the metadata of {files[0].name}")
    return Found(reader.places(files, splits), classes, left_out)


def _ranged(file: Member) -> RangedFile:
    assert file.ranged
    return file.ranged()


class _Reader:
    """Reads the rows of files that have the same columns."""

    def __init__(self, source: str, columns: Columns, reading: Reading, left_out: Tally, described_at: str) -> None:
        self._source, self._columns, self._reading, self._left_out = source, columns, reading, left_out
        self._first = described_at

    def samples(self, files: Iterable[Member], splits: Mapping[str, str], folder: Path) -> Iterator[Sample]:
        for file in files:
            named = f"{self._source}: {file.name}"
            with saved(file, folder) as path, opened_parquet(path, named) as opened:
                self._check(opened, named)
                yield from self._rows(opened, file.name, splits[file.name])

    def places(self, files: Iterable[Member], splits: Mapping[str, str]) -> Iterator[Sample]:
        for file in files:
            named = f"{self._source}: {file.name}"
            with opened_parquet(_ranged(file), named) as opened:
                self._check(opened, named)
                yield from self._rows(opened, file.name, splits[file.name], file)

    def _check(self, file: pq.ParquetFile, named: str) -> None:
        """Raise UserError if the columns are others than those of the first file."""
        schema = Schema(named, file.schema_arrow, columns_of(self._reading))
        found = schema.columns(self._reading.needs_labels)
        if found != self._columns:
            differs = "other classes" if found[:2] == self._columns[:2] else "other columns"
            columns = described(file.schema_arrow)
            raise UserError(f"{named} has {differs} than {self._first}: {columns}", "give files of one data set")

    def _rows(self, file: pq.ParquetFile, name: str, split: str, at: Member | None = None) -> Iterator[Sample]:
        """Yield the samples of a file, of one `at` a place where they are there."""
        columns = [self._columns.picture, self._columns.label or self._columns.picture]
        rows = places_of_rows(file, columns, at) if at else parquet_rows(file, columns, ROWS)
        for row, (value, label) in enumerate(rows):
            content, base = _picture(value)
            picture = f"{name}/{row}" + (f"/{base}" if base else "")
            if content is None:
                self._left_out.add("unreadable", WITHOUT_BYTES, picture)
                continue
            known = self._label(label) if self._columns.label and split != NO_LABELS else None
            yield Sample(picture, NO_SPLITS if split == NO_LABELS else split, known, content)

    def _label(self, value: Any) -> Label | None:
        """Return the label that a value is; None if it is none."""
        if isinstance(value, str):
            return value.strip() or None
        is_none = value is None or (value == NOT_NUMBERED and self._columns.classes)
        return None if is_none else int(value)


def _picture(value: Any) -> tuple[Content | None, str]:
    """Return the bytes of a picture, if there are any, and the name that it had elsewhere, if that is known."""
    if not isinstance(value, dict):
        return value, ""
    path = value.get("path")
    base = plain(path).rpartition("/")[2] if isinstance(path, str) else ""
    shown = "".join(letter for letter in base if letter.isprintable())[:MAX_NAME]
    return value["bytes"], "" if shown in (".", "..") else shown
