"""What a folder, an archive or a bucket holds: a file or a folder."""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from components.shared.data.archives.ranged import RangedFile
from components.shared.data.layout.file_kinds import PICTURE, START_BYTES, FileKind, kind_by_name, kind_by_start


class Zipped(NamedTuple):
    """What the directory of a zip says about a member, as far as it is needed to read it."""

    name: str  # as it is in the zip
    flags: int
    method: int
    crc: int


class Span(NamedTuple):
    """Where a member of an archive is: enough to read it alone."""

    offset: int  # in a zip, of the header before it
    length: int  # in a zip, of what is compressed
    zipped: Zipped | None = None

    def moved(self, offset: int) -> "Span":
        """Return the place in a file that has the archive at an offset."""
        return self._replace(offset=self.offset + offset)


class Row(NamedTuple):
    """Where a Parquet file has a picture."""

    group: int  # of rows
    row: int  # in the group
    column: str
    file_bytes: int  # of the whole file, whose end says where everything is


@dataclass(frozen=True)
class Member:
    """A file or a folder; `name` is relative, with forward slashes, and `with member.open()` reads the bytes."""

    name: str
    size: int
    is_folder: bool
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    read_start: Callable[[], bytes] | None = None  # where opening the whole would cost much
    key: str = ""  # under which its source has it, if it can be read by that from another machine
    etag: str = ""  # the state that it has there
    place: Callable[[Path], object] | None = None  # puts the file at a path, where that costs less than reading it
    span: Span | None = None  # of an archive: where it is there
    row: Row | None = None  # of a table: where it is there
    ranged: Callable[[], RangedFile] | None = None  # opens it so that parts of it can be read

    def kind(self) -> FileKind:
        """Return what kind of file it is, by its name or else by its first bytes."""
        return kind_by_name(self.name) or kind_by_start(self.name, self.start())

    def save(self, path: Path) -> None:
        """Put the file at a path of this machine, for reading."""
        if self.place:
            self.place(path)
            return
        with self.open() as content, open(path, "wb") as file:
            shutil.copyfileobj(content, file)

    def start(self) -> bytes:
        """Return its first bytes."""
        if self.read_start:
            return self.read_start()
        with self.open() as file:
            return file.read(START_BYTES)


@contextmanager
def opened_picture(member: Member) -> Iterator[IO[bytes] | None]:
    """Open a member once, and return its bytes if it is a picture."""
    kind = kind_by_name(member.name)
    if member.is_folder or kind not in (PICTURE, None):
        yield None
        return
    with member.open() as file:
        if kind:
            yield file
            return
        start = file.read(START_BYTES)
        yield io.BytesIO(start + file.read()) if kind_by_start(member.name, start) == PICTURE else None
