"""The members of a tar archive, compressed or not, in one pass and constant memory."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
from _compression import DecompressReader  # what lzma.LZMAFile reads with
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self, cast

from backports import zstd

from components.shared.core.errors import UserError
from components.shared.data.archives.broken import broken_is_an_error
from components.shared.data.archives.kinds import BZIP2, GZIP, XZ, ZSTD, ArchiveFile, opened
from components.shared.data.archives.limits import MAX_MEMBER_BYTES, CountedStream, check_length
from components.shared.data.archives.links import Links
from components.shared.data.archives.member import Member, Span
from components.shared.data.archives.names import UTF8, find_encoding
from components.shared.data.archives.ranged import RangedStream

MAX_HEADER_BYTES = 2**20  # tarfile reads a long name or a list of attributes into memory
HEADERS = (b"x", b"g", b"X", b"L", b"K")  # types of members that describe the next one
MAX_ATTRIBUTES = 1000  # of a member, or of all: those are copied for each
ATTRIBUTE = re.compile(rb"(\d{1,20}) [^=\n]{1,1000}=")
LONG_NUMBER = re.compile(rb"\d{256}")  # in which tarfile looks for an encoding, from each digit on
MAX_XZ_BYTES = 2**28  # of memory for decompression: xz -9 needs 65 MiB, a file may demand 4 GiB
MAX_ZSTD_WINDOW = 27  # of 128 MiB; zstd itself takes more only on request
MAX_TAIL_BYTES = 8 * 2**20  # of zeros after the last member: tar writes 10 KiB, some programs more
MAX_NAMES = 100_000  # that are looked at to find their encoding
BLOCK = 1 << 18


def tar_members(path: ArchiveFile) -> Iterator[Member]:
    """Yield the members of a tar archive, each to be opened only while it is the current one.

    What links lead to comes last, in a second pass, under the names of the links. Raises UserError at a member that is
    neither a file, nor a folder, nor a link to one in the archive.
    """
    names, links = _Names(path), Links(path)
    for info, name, member in _pass(path, names):
        if member:
            yield member
        else:
            target = names.decode(info, "linkpath")
            links.add(name, target, "" if info.islnk() else name.rstrip("/").rpartition("/")[0])
    if links:
        links.resolve()
        for _, name, member in _pass(path, names):
            if member:
                opened = _kept(member)
                yield from (replace(member, name=link, open=opened) for link in links.names_of(name))
        links.require_used()


def _pass(path: ArchiveFile, names: "_Names") -> Iterator[tuple[tarfile.TarInfo, str, Member | None]]:
    """Yield each header with its name, and its member unless it is a link."""
    with _decompressed(path) as file, _open_tar(path, file) as archive:
        for info in _headers(archive):
            name = names.decode(info, "path")
            if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in info.pax_headers):
                raise UserError(f"{path} holds the sparse file {name!r}", "pack it without --sparse")
            if info.issym() or info.islnk():
                yield info, name, None
            elif info.isreg() or info.isdir():
                shown = name + ("/" if info.isdir() else "")
                span = Span(info.offset_data, info.size)
                yield info, name, Member(shown, info.size, info.isdir(), partial(_open, path, archive, info), span=span)
            else:
                raise UserError(f"{path} holds the device {name!r}", "pack files and folders only")
        _read_tail(path, cast(IO[bytes], archive.fileobj))


def _kept(member: Member) -> Callable[[], IO[bytes]]:
    """Return a function that opens a member as often as wanted, while it is the current one."""

    @cache
    def content() -> bytes:
        with member.open() as file:
            return file.read()

    return lambda: io.BytesIO(content())


def _read_tail(path: ArchiveFile, file: IO[bytes]) -> None:
    """Read the zeros after the last member, to where the compression's checksum is."""
    count = 0
    while block := file.read(BLOCK):
        count += len(block)
        if block.strip(b"\0"):
            raise UserError(f"{path} goes on after its end", "pack it again, as one archive")
        if count > MAX_TAIL_BYTES:
            raise UserError(f"{path} goes on for more than {MAX_TAIL_BYTES:,} bytes after its end", "pack it again")


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of an archive in constant memory. Raises tarfile.TarError if one is damaged."""
    with _numbers_are_checked():
        for info in archive:
            if info.size < 0:
                raise tarfile.ReadError(f"{info.name!r} has a size of {info.size:,} bytes")
            yield info
            archive.members = []  # type: ignore[attr-defined]  # otherwise every header stays in memory


@contextmanager
def _numbers_are_checked() -> Iterator[None]:
    """Raise tarfile.ReadError for a number in a header that is none."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, OverflowError) as error:
        raise tarfile.ReadError(f"a damaged header: {error}") from None


class _Names:
    """The names of a tar's members; at the first that is in no stated encoding all are read, to find it."""

    def __init__(self, path: ArchiveFile) -> None:
        self._path, self._encoding = path, ""

    def decode(self, info: tarfile.TarInfo, field: str) -> str:
        """Return a member's name (`path`), or that of what a link leads to (`linkpath`)."""
        raw = _unstated(info, field)
        if raw and not self._encoding:
            self._encoding = find_encoding(self._path.name, self._all())
        return raw.decode(self._encoding) if raw else str(getattr(info, field))

    def _all(self) -> list[bytes]:
        with _decompressed(self._path) as file, _open_tar(self._path, file) as archive:
            return [*dict.fromkeys(islice(_all_unstated(self._path, archive), MAX_NAMES))]


def _unstated(info: tarfile.TarInfo, field: str) -> bytes:
    """Return the bytes of a name if they are neither ASCII nor stated to be UTF-8, and so, else none."""
    name = str(getattr(info, field))
    is_bytes = any("\udc80" <= letter <= "\udcff" for letter in name)  # as Python shows what is not UTF-8
    is_utf8 = name.isascii() or (field in info.pax_headers and not is_bytes)
    return b"" if is_utf8 else name.encode(UTF8, "surrogateescape")


def _all_unstated(path: ArchiveFile, archive: tarfile.TarFile) -> Iterator[bytes]:
    for info in _headers(archive):
        for raw in filter(None, (_unstated(info, field) for field in ("path", "linkpath"))):
            check_length(path, raw)
            yield raw
        if info.size > MAX_MEMBER_BYTES:  # which is refused where it is yielded; its end is far beyond that of the file
            return


def _open_tar(path: ArchiveFile, file: IO[bytes]) -> tarfile.TarFile:
    """Open a tar: one that is a path or compressed as a stream, another so that what is in members is passed over."""
    with _numbers_are_checked():  # also of the first header
        if isinstance(file, RangedStream):
            return tarfile.open(fileobj=file, mode="r:", tarinfo=_Header, encoding=UTF8)
        stream = cast(IO[bytes], CountedStream(path, file))
        return tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK, tarinfo=_Header, encoding=UTF8)


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

    def _proc_pax(self, archive: Any) -> tarfile.TarInfo:
        """Read attributes that are framed as they must be: older Pythons read others in quadratic time and memory."""
        block = archive.fileobj.read(self._block(self.size))  # type: ignore[attr-defined]
        _check_attributes(block, len(archive.pax_headers))
        archive.fileobj = _Again(archive, block)
        return super()._proc_pax(archive)  # type: ignore[misc, no-any-return]

    def _proc_sparse(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Read a sparse file as a plain one, which is refused: its map may demand any size."""
        return self._proc_builtin(archive)  # type: ignore[attr-defined, no-any-return]

    def _ignore_map(self, *_: object) -> None:
        """Read no map of a sparse file."""

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _ignore_map


class _Again:
    """The file of an archive of which a block was read, that once more gives this block."""

    def __init__(self, archive: Any, block: bytes) -> None:
        self._archive, self._file, self._block = archive, archive.fileobj, block

    def read(self, _: int) -> bytes:
        self._archive.fileobj = self._file
        return self._block


def _check_attributes(block: bytes, count: int) -> None:
    """Raise tarfile.ReadError unless each attribute is framed by its length and a line end; `count` hold for all."""
    start = 0
    while block[start : start + 1].strip(b"\0"):
        found = ATTRIBUTE.match(block, start)
        end = start + int(found[1]) if found else 0
        if not found or end < found.end() or block[end - 1 : end] != b"\n":
            raise tarfile.ReadError("a damaged header: its attributes are not framed")
        start, count = end, count + 1
        if count > MAX_ATTRIBUTES:
            raise tarfile.ReadError(f"a header with more than {MAX_ATTRIBUTES:,} attributes")
    if LONG_NUMBER.search(block):
        raise tarfile.ReadError("a damaged header: a number of too many digits")


class _Xz(lzma.LZMAFile):
    """A file as lzma.open opens it, but with bounded memory for decompression."""

    def __init__(self, path: Path | IO[bytes]) -> None:
        super().__init__(path)
        decompressor = partial(lzma.LZMADecompressor, memlimit=MAX_XZ_BYTES)
        reader = DecompressReader(self._fp, decompressor, trailing_error=lzma.LZMAError)  # type: ignore[attr-defined]
        self._buffer = io.BufferedReader(reader)


def _plain(path: Path | IO[bytes]) -> IO[bytes]:
    return open(path, "rb") if isinstance(path, Path) else path


def _zstd(path: Path | IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], zstd.open(path, options={zstd.DecompressionParameter.window_log_max: MAX_ZSTD_WINDOW}))


OPENERS: dict[bytes, Callable[[Any], Any]] = {
    GZIP: gzip.open,
    BZIP2: bz2.open,
    XZ: _Xz,
    ZSTD: _zstd,
}


def is_compressed(path: ArchiveFile) -> bool:
    """Return whether a tar is compressed as a whole."""
    return _opener(path) is not _plain


def _decompressed(path: ArchiveFile) -> IO[bytes]:
    return cast(IO[bytes], _opener(path)(opened(path)))


def _opener(path: ArchiveFile) -> Callable[[Any], Any]:
    with path.open("rb") as file:
        start = file.read(8)
    return next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), _plain)


@contextmanager
def _open(path: ArchiveFile, archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[IO[bytes]]:
    file = archive.extractfile(info)
    assert file is not None
    with broken_is_an_error(path), file:
        yield file
