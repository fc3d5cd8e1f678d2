"""The members of a zip archive."""

import bz2
import io
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import IO, Any, cast

from components.shared.core.errors import UserError
from components.shared.core.resources import free_memory
from components.shared.data.archives.broken import broken_is_an_error
from components.shared.data.archives.kinds import ArchiveFile, opened
from components.shared.data.archives.limits import MAX_MEMBERS, MAX_NAME, check_length
from components.shared.data.archives.links import Links
from components.shared.data.archives.member import Member, Span, Zipped
from components.shared.data.archives.names import UTF8, find_encoding, unicode_path
from components.shared.data.archives.ranged import RangedFile

IS_UTF8 = 0x800  # the flag of a name in UTF-8
READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # ways of compression
METHODS = {9: "Deflate64", 14: "LZMA", 93: "Zstandard", 95: "xz"}  # LZMA's dictionary may need 4 GiB
BYTES_OF_MEMBER = 700  # of memory for each, without its name
PIECE = 2**20
HARMLESS_BYTES = 2**26  # of memory
NO_MEMBERS = b"PK\5\6" + bytes(18)  # a zip without any
LOCAL_ENTRY = 30  # bytes of the header before a member, before its name
ENTRY = 46  # bytes of a member in the directory, before its name


def zip_members(path: ArchiveFile) -> Iterator[Member]:
    """Yield the members of a zip archive in the order of its directory; what links lead to comes last.

    Raises UserError at a member that is not plain.
    """
    _check_directory(path)
    with zipfile.ZipFile(opened(path)) as archive:
        if isinstance(path, RangedFile):
            _refuse_overlaps(archive)
        links, found = Links(path), [*zip(archive.infolist(), _names(path, archive.infolist()), strict=True)]
        for info, name in found:
            _require_plain(path, info, name)
            if _is_link(info):
                with _open(path, archive, info) as file:
                    target = file.read(MAX_NAME).decode(errors="surrogateescape")
                links.add(name, target, name.rpartition("/")[0])
            else:
                yield _member(path, archive, info, name)
        if links:
            links.resolve()
            for info, name in found:
                yield from (_member(path, archive, info, link) for link in links.names_of(name) if not _is_link(info))
            links.require_used()


def zip_content(path: ArchiveFile, file: IO[bytes], size: int, span: Span) -> bytes:
    """Return a member of `size` bytes, of which the directory said the place, from a file that is open.

    Raises UserError if it is not there, or broken.
    """
    assert span.zipped
    info = zipfile.ZipInfo(span.zipped.name)
    info.flag_bits, info.compress_type, info.CRC = span.zipped[1:]
    info.header_offset, info.compress_size, info.file_size = span.offset, span.length, size
    with zipfile.ZipFile(io.BytesIO(NO_MEMBERS)) as archive:
        archive.fp = file  # so that the directory, which need not be small, is not read again
        with _open(path, archive, info) as content:
            return content.read()


def _is_link(info: zipfile.ZipInfo) -> bool:
    return info.external_attr >> 28 == 0o12


def _member(path: ArchiveFile, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member:
    is_folder = info.filename.replace("\\", "/").endswith("/")
    zipped = Zipped(info.orig_filename, info.flag_bits, info.compress_type, info.CRC)
    span = Span(info.header_offset, info.compress_size, zipped)
    return Member(name, info.file_size, is_folder, partial(_open, path, archive, info), span=span)


def _refuse_overlaps(archive: zipfile.ZipFile) -> None:
    """Raise BadZipFile if members share bytes: zipfile, which may look for that, does not when one is read alone."""
    end = archive.start_dir
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset, reverse=True):
        if info.header_offset + LOCAL_ENTRY + info.compress_size > end:
            raise zipfile.BadZipFile(f"Overlapped entries: {info.orig_filename!r} (possible zip bomb)")
        end = info.header_offset


def _require_plain(path: ArchiveFile, info: zipfile.ZipInfo, name: str) -> None:
    if info.flag_bits & 1:
        raise UserError(f"{path} holds {name!r} encrypted", "pack it without a password")
    if info.compress_type not in READ:
        method = METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise UserError(f"{path} holds {name!r} compressed by {method}", "compress it by deflate")


def _names(path: ArchiveFile, infos: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield the members' names, those that are in no stated encoding decoded by the likeliest for all of them."""
    for info in infos:
        check_length(path, info.filename)
    unstated = [raw for info in infos if not info.filename.isascii() and (raw := _raw(info)) and not _stated(info, raw)]
    encoding = find_encoding(path.name, unstated) if unstated else UTF8
    for info in infos:
        raw = b"" if info.filename.isascii() else _raw(info)
        yield (_stated(info, raw) or raw.decode(encoding)) if raw else info.filename


def _raw(info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of a name that is not flagged as UTF-8, which zipfile decodes by cp437; else none."""
    return b"" if info.flag_bits & IS_UTF8 else info.filename.encode("cp437")


def _stated(info: zipfile.ZipInfo, raw: bytes) -> str | None:
    return unicode_path(raw, info.extra)


def _check_directory(path: ArchiveFile) -> None:
    """Raise UserError if the directory, which zipfile keeps in memory, is too large for it."""
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if not end:
            raise zipfile.BadZipFile("File is not a zip file")
        size, place = end[5], end[9] - (76 if end[0] == b"PK\6\6" else 0)
        if size > place:
            raise zipfile.BadZipFile("its directory is larger than the file")
        needed = 2 * size + BYTES_OF_MEMBER * _count(file, place - size, place)
    if needed > HARMLESS_BYTES and needed > (free := free_memory()):
        raise UserError(
            f"{path} has a directory that needs {needed >> 20:,} MiB of memory, and {free >> 20:,} MiB are free",
            "pack it as tar, which is read member by member, or allow the step more memory",
        )


def _count(file: IO[bytes], start: int, end: int) -> int:
    """Return the number of members in a directory, which need not be that which the archive states."""
    count = 0
    while 0 <= start <= end - ENTRY and count <= MAX_MEMBERS:
        file.seek(start)
        start += ENTRY + sum(struct.unpack_from("<3H", file.read(ENTRY), 28))
        count += 1
    return count


@contextmanager
def _open(path: ArchiveFile, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    is_bzip2 = info.compress_type == zipfile.ZIP_BZIP2
    with broken_is_an_error(path), _bzip2(archive, info) if is_bzip2 else archive.open(info) as file:
        pieces = _Pieces(file, info.file_size)
        yield io.BufferedReader(pieces)
        if pieces.left and not file.read(1):
            raise zipfile.BadZipFile(f"{info.filename!r} is shorter than announced in the directory")


@contextmanager
def _bzip2(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """Open a member compressed by bzip2, which zipfile decompresses whole: 4 KiB may hold 4 GiB."""
    stored = copy(info)
    stored.compress_type, stored.file_size = zipfile.ZIP_STORED, info.compress_size
    del stored.CRC  # of what is unpacked, for which bzip2 has sums of its own
    with archive.open(stored) as packed, bz2.open(packed) as file:
        yield cast(IO[bytes], file)


class _Pieces(io.RawIOBase):
    """As many bytes as the directory announces, read in pieces: zipfile decompresses at once what it is asked for."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self.left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(self.left, len(buffer), PIECE))
        buffer[: len(piece)] = piece
        self.left -= len(piece)
        return len(piece)

    def readall(self) -> bytes:
        pieces = []
        while piece := self._file.read(min(self.left, PIECE)):
            pieces.append(piece)
            self.left -= len(piece)
        return b"".join(pieces)
