"""A file that is read in ranges, as the readers of archives take it: an object of a store, or a part of one."""

import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import IO, Any, Literal, cast

from components.shared.core.errors import UserError

FIRST_BYTES, MOST_BYTES = 2**16, 8 * 2**20  # that are read ahead: as many as the reading goes on
NEAR_BYTES = 2**20  # ahead of what was read: so far on, reading costs less than a request for every member


class _Described:
    """The name and the size of a file, as the readers of archives ask for them."""

    shown: str  # how people know it
    size: int

    def __str__(self) -> str:
        return self.shown

    @property
    def name(self) -> str:
        """Return its last part."""
        return self.shown.rpartition("/")[2]

    def stat(self) -> SimpleNamespace:
        """Return its size."""
        return SimpleNamespace(st_size=self.size)


@dataclass(frozen=True)
class RangedFile(_Described):
    """A file, or a part of it; `fetch(start, length)` returns bytes of the whole, fewer only at its end."""

    shown: str
    key: str  # under which its source has it
    etag: str  # the state that it has there
    size: int
    fetch: Callable[[int, int], bytes]
    start: int = 0  # of this part in the whole

    def part(self, shown: str, offset: int, size: int) -> "RangedFile":
        """Return a part of the file as a file of its own."""
        return replace(self, shown=shown, start=self.start + offset, size=size)

    def open(self, _: Literal["rb"], /) -> IO[bytes]:
        """Open it for reading, from any place."""
        return cast(IO[bytes], RangedStream(self))


@dataclass(frozen=True)
class StreamedFile(_Described):
    """A file that is read from start to end only; `stream()` opens it."""

    shown: str
    key: str
    etag: str
    size: int
    stream: Callable[[], IO[bytes]]
    start: int = 0

    def open(self, _: Literal["rb"], /) -> IO[bytes]:
        """Open it for reading."""
        return self.stream()


def local_file(path: str, etag: str, size: int) -> RangedFile:
    """Return a file of this machine, in the state that its time says."""
    return RangedFile(path, path, etag, size, partial(local_bytes, path, etag))


def local_bytes(path: str, etag: str, start: int = 0, length: int | None = None) -> bytes:
    """Return some bytes of a file of this machine. Raises UserError if it has changed since it was listed."""
    try:
        with open(path, "rb", buffering=0) as file:
            if str(os.fstat(file.fileno()).st_mtime_ns) == etag:
                file.seek(start)
                return file.read(-1 if length is None else length)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        pass
    raise UserError(f"{path} has changed since it was listed", "run it again")


class RangedStream(io.RawIOBase):
    """An opened file, of which a block is in memory; the further it is read without a gap, the larger is the next."""

    def __init__(self, file: RangedFile) -> None:
        """Start at the start of the file, without a request."""
        self._file, self._at = file, 0
        self._block, self._first, self._ahead = memoryview(b""), 0, FIRST_BYTES

    def load(self, start: int, length: int) -> None:
        """Have a range in memory."""
        self._block, self._first = memoryview(self._file.fetch(self._file.start + start, length)), start

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place. Raises OSError if it is before the start."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if self._at < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as of a file on a disk
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Read as many bytes as the buffer takes, fewer only at the end of the file."""
        wanted = max(0, min(len(buffer), self._file.size - self._at))
        done = 0
        while done < wanted:
            if not 0 <= self._at - self._first < len(self._block):
                self._next(wanted - done)
                if not self._block:
                    break
            inside = self._at - self._first
            piece = self._block[inside : inside + wanted - done]
            buffer[done : done + len(piece)] = piece
            done, self._at = done + len(piece), self._at + len(piece)
        return done

    def _next(self, wanted: int) -> None:
        """Read a block from the present place on, larger than the last one if this was read to its end."""
        is_near = 0 <= self._at - self._first - len(self._block) <= NEAR_BYTES and self._block
        self._ahead = min(2 * self._ahead, MOST_BYTES) if is_near else FIRST_BYTES
        self.load(self._at, min(max(wanted, self._ahead), self._file.size - self._at))
