"""The members of a tar archive, compressed or not, in one pass and constant memory."""

import bz2
import gzip
import io
import lzma
import tarfile
from _compression import DecompressReader  # what lzma.LZMAFile reads with
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self, cast

from components.shared.core.errors import UserError
from components.shared.data.archives.broken import broken_is_an_error
from components.shared.data.archives.member import Member
from components.shared.data.archives.names import UTF8, find_encoding

MAX_HEADER_BYTES = 2**20  # tarfile reads a long name or a list of attributes into memory
HEADERS = (b"x", b"g", b"X", b"L", b"K")  # types of members that describe the next one
MAX_XZ_BYTES = 2**28  # of memory for decompression: xz -9 needs 65 MiB, a file may demand 4 GiB
MAX_NAMES = 100_000  # that are looked at to find their encoding
BLOCK = 1 << 18


def tar_members(path: Path) -> Iterator[Member]:
    """Yield the members of a tar archive, each to be opened only while it is the current one.

    Raises UserError at a member that is neither a plain file nor a folder.
    """
    names = _Names(path)
    with _decompressed(path) as file, _open_tar(file) as archive:
        for info in archive:
            name = names.decode(info)
            if not (info.isreg() or info.isdir()):
                kind = "link" if info.issym() or info.islnk() else "device"
                raise UserError(f"{path} holds the {kind} {name!r}", "pack plain files only")
            yield Member(
                name + ("/" if info.isdir() else ""), info.size, info.isdir(), partial(_open, path, archive, info)
            )
            archive.members = []  # type: ignore[attr-defined]  # otherwise every header stays in memory
        while file.read(BLOCK):  # to the end, where the compression's checksum is
            pass


class _Names:
    """The names of a tar's members; at the first that is in no stated encoding all are read, to find it."""

    def __init__(self, path: Path) -> None:
        self._path, self._encoding = path, ""

    def decode(self, info: tarfile.TarInfo) -> str:
        """Return a member's name."""
        raw = _unstated(info)
        if raw and not self._encoding:
            self._encoding = find_encoding(self._path.name, self._all())
        return raw.decode(self._encoding) if raw else info.name

    def _all(self) -> list[bytes]:
        with _decompressed(self._path) as file, _open_tar(file) as archive:
            return [*dict.fromkeys(islice(_all_unstated(archive), MAX_NAMES))]


def _unstated(info: tarfile.TarInfo) -> bytes:
    """Return the bytes of a name if they are neither ASCII nor stated to be UTF-8, else none."""
    is_stated = info.name.isascii() or "path" in info.pax_headers
    return b"" if is_stated else info.name.encode(UTF8, "surrogateescape")


def _all_unstated(archive: tarfile.TarFile) -> Iterator[bytes]:
    for info in archive:
        if raw := _unstated(info):
            yield raw
        archive.members = []  # type: ignore[attr-defined]


def _open_tar(file: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r|", bufsize=BLOCK, tarinfo=_Header, encoding=UTF8)


class _Header(tarfile.TarInfo):
    """A tar header; a damaged or missing one is an error, while tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # marks the end
                raise
            raise tarfile.ReadError(f"truncated, or a damaged header: {error}") from None
        if header.type in HEADERS and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes, at most {MAX_HEADER_BYTES:,}")
        return header


class _Xz(lzma.LZMAFile):
    """A file as lzma.open opens it, but with bounded memory for decompression."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        decompressor = partial(lzma.LZMADecompressor, memlimit=MAX_XZ_BYTES)
        reader = DecompressReader(self._fp, decompressor, trailing_error=lzma.LZMAError)  # type: ignore[attr-defined]
        self._buffer = io.BufferedReader(reader)


def _plain(path: Path) -> IO[bytes]:
    return open(path, "rb")


OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": _Xz}


def _decompressed(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), _plain)
    return cast(IO[bytes], opener(path))


@contextmanager
def _open(path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[IO[bytes]]:
    file = archive.extractfile(info)
    assert file is not None
    with broken_is_an_error(path), file:
        yield file
