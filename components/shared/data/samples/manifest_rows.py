"""The rows of a manifest, a CSV or a Parquet file, and which columns have the pictures, their classes and splits."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from components.shared.core.errors import UserError
from components.shared.data.archives.kinds import ArchiveFile
from components.shared.data.layout.file_kinds import PICTURES
from components.shared.data.layout.label_table import DELIMITERS, column_named, csv_rows, label_column
from components.shared.data.samples.parquet_columns import holds_labels, holds_text
from components.shared.data.samples.parquet_files import described, opened_parquet, parquet_rows

# The usual names of columns, the likelier first, in lower case and without separators.
PICTURE_NAMES = (
    *("path", "filepath", "imagepath", "imgpath", "picturepath", "filename", "file", "uri", "imageuri", "s3uri"),
    *("url", "imageurl", "image", "img", "picture", "location", "key", "name", "imageid", "id"),
)
SPLIT_NAMES = ("split", "subset", "partition")
AT_ONCE = 4096  # rows of Parquet in memory


class Manifest(NamedTuple):
    """An opened manifest: its columns, the numbers of those that may name pictures and have classes, and its rows."""

    columns: list[str]
    texts: list[int]
    labels: list[int]
    rows: Iterator[tuple[int, Sequence[Any]]]  # with their numbers, as people count them
    shown: str  # all columns of the file, in words


class Chosen(NamedTuple):
    """The numbers of the columns."""

    picture: int
    label: int | None
    split: int | None


@contextmanager
def opened_manifest(path: ArchiveFile, named: str, is_parquet: bool) -> Iterator[Manifest]:
    """Open a manifest. Raises UserError, with the name that people know, if it cannot be read, also in the block."""
    if is_parquet:
        with opened_parquet(path, named) as file:
            schema = file.schema_arrow
            texts = [number for number, field in enumerate(schema) if holds_text(field.type)]
            labels = [number for number, field in enumerate(schema) if holds_labels(field.type)]
            usable = [schema.names[number] for number in labels]  # others may be of any size
            numbered = enumerate(parquet_rows(file, usable, AT_ONCE), 1)
            numbers = [labels.index(number) for number in texts]
            yield Manifest(usable, numbers, [*range(len(usable))], numbered, described(schema))
        return
    try:
        with io.TextIOWrapper(_buffered(path.open("rb")), encoding="utf-8-sig", newline="") as text:
            yield _csv(text.readline(), named, text)
    except UnicodeDecodeError:
        raise UserError(f"{named} is not in UTF-8", "save it in UTF-8") from None


def _buffered(file: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file


def chosen_columns(manifest: Manifest, named: str, given: Sequence[str], needs_labels: bool) -> Chosen:
    """Return the columns that are given, or else found. Raises UserError if they are not clear."""
    columns = manifest.columns
    remedy = f"set label_columns=PICTURE,CLASS to two of its columns: {manifest.shown}"
    for column in given:
        if column not in columns:
            raise UserError(f"{named} has no column {column!r}", remedy)
    split = column_named(SPLIT_NAMES, columns, range(len(columns)))
    if given:
        return Chosen(columns.index(given[0]), columns.index(given[1]), split)
    picture = _picture_column(manifest)
    if picture is None:
        raise UserError(f"{named}: which column has the paths of the pictures is not clear", remedy)
    label = label_column(columns, [number for number in manifest.labels if number not in (picture, split)])
    if label is None and needs_labels:
        raise UserError(f"{named}: which column has the classes is not clear", remedy)
    return Chosen(picture, label, split)


def names_picture(cell: str) -> bool:
    """Return whether a cell ends like the name of a picture."""
    return cell.strip().lower().endswith(PICTURES)


def _picture_column(manifest: Manifest) -> int | None:
    found = column_named(PICTURE_NAMES, manifest.columns, manifest.texts)
    return manifest.texts[0] if found is None and len(manifest.texts) == 1 else found


def _csv(first: str, named: str, rest: Iterator[str]) -> Manifest:
    """Return a CSV of which the first line is read. Raises UserError if it has no two columns."""
    delimiter = max(DELIMITERS, key=first.count)
    _, header = next(csv_rows(named, [first], delimiter), (1, []))
    if not header:
        raise UserError(f"{named} begins with no row", "give a CSV with the pictures and their classes")
    pictures = [number for number, cell in enumerate(header) if names_picture(cell)]  # none, if it names the columns
    columns = [str(n) for n in range(1, len(header) + 1)] if pictures else [cell.strip() for cell in header]
    numbers = [*range(len(columns))]
    rows = _rows(rest, delimiter, named, header)
    return Manifest(columns, pictures or numbers, numbers, rows, ", ".join(columns))


def _rows(rest: Iterator[str], delimiter: str, named: str, first: list[str]) -> Iterator[tuple[int, list[str]]]:
    if any(names_picture(cell) for cell in first):
        yield 1, first
    for number, row in csv_rows(named, rest, delimiter, 2):
        if len(row) != len(first):
            cells = f"has {len(row)} cells, and the first row {len(first)}"
            raise UserError(f"{named}: row {number} {cells}", "correct it")
        yield number, row
