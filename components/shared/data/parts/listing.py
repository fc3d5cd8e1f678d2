"""The list of a source's pictures, from which many pods read them one by one: writer and reader side by side.

A folder with `listing.parquet`, a row for each picture in the source's order, in row groups of SPLIT_ROWS, and
`listing.json`, written last. The columns:

name     of the picture, for people
key      under which the source has it
etag     the state in which it was listed
size     in bytes
label    the number of the class
split    of the source; `all` if it has none
span     of a member of an archive: where it is there
row      of a row of a Parquet file: where it is there
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from components.shared.core.document import Count, Document, Names, Number, Sha256, ValueRange
from components.shared.core.errors import CorruptDataError
from components.shared.core.files import new_file, sha256_file, sha256_json
from components.shared.data.archives.member import Row, Span, Zipped
from components.shared.data.dataset import SPLIT_ROWS
from components.shared.data.layout.left_out import LeftOut
from components.shared.data.sources.schemes import Kind, Listed

DOCUMENT, PICTURES = "listing.json", "listing.parquet"
AGAIN = "list the source again"
_ZIPPED = pa.struct({"name": pa.string(), "flags": pa.int32(), "method": pa.int32(), "crc": pa.int64()})
_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "key": pa.string(),
        "etag": pa.string(),
        "size": pa.int64(),
        "label": pa.int32(),
        "split": pa.dictionary(pa.int8(), pa.string()),
        "span": pa.struct({"offset": pa.int64(), "length": pa.int64(), "zipped": _ZIPPED}),
        "row": pa.struct(
            {"group": pa.int32(), "row": pa.int64(), "column": pa.string(), "file_bytes": pa.int64()},
        ),
    }
)


class ListingDocument(Document):
    """`listing.json`: what the pictures are, and where they come from."""

    FORMAT = "torch2kubeflow/listing"
    REMEDY = AGAIN

    name: str  # of the data set, for people
    kind: Kind = "pictures"
    source: str
    version: str  # of the source
    classes: Names
    pictures: Count
    sha256: Sha256  # of the list
    left_out: LeftOut | None = None
    recipe: str = ""  # by which pods prepare the pictures, in graph bigdata; the list does not depend on it
    value_range: ValueRange | None = None  # of pictures of more than 8 bits, given or measured
    seconds: dict[str, Number] = Field(default_factory=dict)  # that each step took; the list does not depend on them

    @property
    def digest(self) -> str:
        """Return the digest of what the pictures are, as far as the source says without reading them."""
        return sha256_json([self.classes, self.sha256])


@dataclass(frozen=True)
class Listing:
    """The list of a source's pictures, opened for reading."""

    folder: Path
    document: ListingDocument

    def pictures(self, first: int, count: int) -> list[Listed]:
        """Return some pictures of one row group, by their numbers."""
        table = _read_group(self.folder, self.document.sha256, first // SPLIT_ROWS).slice(first % SPLIT_ROWS, count)
        return [*_pictures_in(table)]

    def blocks(self) -> Iterator[list[Listed]]:
        """Yield all pictures, SPLIT_ROWS at a time."""
        for first in range(0, self.document.pictures, SPLIT_ROWS):
            yield self.pictures(first, SPLIT_ROWS)


def write_pictures(folder: Path, pictures: Iterable[Listed], **description: Any) -> ListingDocument:
    """Write pictures to a folder; return the document of their list, which is to be written last.

    The description has the fields of it that the pictures do not tell.
    """
    with new_file(folder / PICTURES) as file, ListWriter(file) as writer:
        for picture in pictures:
            writer.add(picture)
    return ListingDocument(pictures=writer.count, sha256=sha256_file(folder / PICTURES), **description)


def is_listing(path: str | Path) -> bool:
    """Return whether a folder holds a list of pictures."""
    return (Path(path) / DOCUMENT).exists()


def open_listing(path: str | Path) -> Listing:
    """Open the list in a folder. Raises UserError if its document is missing, CorruptDataError if the list differs."""
    listing = Listing(Path(path), ListingDocument.read(Path(path) / DOCUMENT))
    if sha256_file(listing.folder / PICTURES) != listing.document.sha256:
        raise CorruptDataError(f"{listing.folder / PICTURES} differs from its digest in {DOCUMENT}", AGAIN)
    return listing


class ListWriter:
    """Writes a list to a file, in row groups of SPLIT_ROWS."""

    def __init__(self, file: IO[bytes] | Path) -> None:
        """Write to an open file, or to a new one."""
        self._writer = pq.ParquetWriter(file, _SCHEMA)
        self._part: list[Listed] = []
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._write()
        self._writer.close()

    def add(self, picture: Listed) -> None:
        """Write a picture."""
        self._part.append(picture)
        self.count += 1
        if len(self._part) == SPLIT_ROWS:
            self._write()

    def _write(self) -> None:
        if self._part:
            self._writer.write_table(pa.Table.from_pylist([_row(picture) for picture in self._part], _SCHEMA))
        self._part = []


def read_list(path: Path) -> Iterator[Listed]:
    """Yield the pictures of a list."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from _pictures_in(file.read_row_group(group))


def _row(picture: Listed) -> dict[str, Any]:
    row = picture._asdict()
    if span := picture.span:
        row["span"] = span._asdict() | {"zipped": span.zipped and span.zipped._asdict()}
    if picture.row:
        row["row"] = picture.row._asdict()
    return row


@lru_cache(maxsize=1)
def _read_group(folder: Path, sha256: str, group: int) -> pa.Table:
    """Return a row group of a list, which has several units: it is kept until another is wanted."""
    with pq.ParquetFile(folder / PICTURES) as file:
        return file.read_row_group(group)


def _pictures_in(table: pa.Table) -> Iterator[Listed]:
    columns = [table[name].to_pylist() for name in Listed._fields[:-2]]
    # Lists of earlier versions have no spans and rows.
    spans, rows = (table[name].to_pylist() if name in table.column_names else repeat(None) for name in ("span", "row"))
    for *fields, span, row in zip(*columns, spans, rows, strict=False):
        yield Listed._make((*fields, _span(span), row and Row(**row)))


def _span(fields: dict[str, Any] | None) -> Span | None:
    if not fields:
        return None
    zipped = fields["zipped"] and Zipped(**fields["zipped"])
    return Span(fields["offset"], fields["length"], zipped)
