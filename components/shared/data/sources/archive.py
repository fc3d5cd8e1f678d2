"""The members of a folder, a zip or a tar archive, read safely: nothing is ever extracted to disk."""

import bz2
import errno
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from _compression import DecompressReader  # what lzma.LZMAFile reads with
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self, cast

from components.shared.core.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_MEMBERS = 20_000_000
MAX_MEMBER_BYTES = 16 * 2**30
MAX_TOTAL_BYTES = 16 * 2**40
MAX_HEADER_BYTES = 2**20  # tarfile reads a long name or a list of attributes into memory
HEADERS = (b"x", b"g", b"X", b"L", b"K")  # types of members that describe the next one
MAX_RATIO = 200  # unpacked to packed bytes: pictures stay near 1, deflate can reach 1,032
RATIO_FROM_BYTES = 64 * 2**20  # a high ratio below that is harmless
MAX_XZ_BYTES = 2**28  # of memory for decompression: xz -9 needs 65 MiB, a file may demand 4 GiB
BLOCK = 1 << 18
AGAIN = "replace it with an intact copy"
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RecursionError,
    UnicodeDecodeError,
)


@dataclass(frozen=True)
class Member:
    """A file or a folder; `name` is relative, with forward slashes, and `with member.open()` reads the bytes."""

    name: str
    size: int
    is_folder: bool
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def is_archive(path: Path) -> bool:
    """Return whether the file's name is that of a supported archive."""
    return path.name.lower().endswith(SUFFIXES)


def members(path: Path) -> Iterator[Member]:
    """Yield the members of a folder (by name) or an archive (in its own order), in constant memory for tar.

    A tar member can be opened only while it is the current one. Hidden files and macOS' resource forks are left out.
    Raises UserError, also while a member is read, if a member's name leads outside or is not UTF-8, if it is a link, a
    device or encrypted, if the members are too many or too large for the archive's own size, if unpacking needs too
    much memory, or if the archive is broken.
    """
    if path.is_dir():
        yield from visible(str(path), _folder_members(path))
    else:
        with _broken_is_an_error(path):
            reader = _zip_members if path.name.lower().endswith(".zip") else _tar_members
            yield from visible(str(path), _limited(path, reader(path)))


@contextmanager
def _broken_is_an_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise UserError(f"{path} cannot be read as an archive ({error})", AGAIN) from None
    except OSError as error:  # without a number from bz2 and gzip, EINVAL if a zip's offsets lead before its start
        if error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(f"{path} cannot be read as an archive ({error})", AGAIN) from None


def _folder_members(folder: Path) -> Iterator[Member]:
    for where, folders, files in os.walk(folder, onerror=refuse_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base = Path(where)
        inside = "" if base == folder else base.relative_to(folder).as_posix() + "/"
        if inside:
            yield Member(inside, 0, True, _no_file)
        for name in sorted(files) + folders:
            path = base / name
            if path.is_file():
                yield Member(inside + name, path.stat().st_size, False, partial(_file, path))
            elif path.is_symlink() and not name.startswith("."):
                raise UserError(
                    f"{folder} holds {inside + name!r}, a link to no file", "remove it, or add the file itself"
                )


def refuse_unreadable(error: OSError) -> None:
    """Raise UserError for a folder that os.walk cannot read, and would leave out."""
    raise UserError(f"{error.filename} cannot be read ({error.strerror})", "allow reading it, or move it elsewhere")


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.external_attr >> 28 == 0o12:
                raise UserError(f"{path} holds the link {info.filename!r}", "pack the file itself")
            if info.flag_bits & 1:
                raise UserError(f"{path} holds {info.filename!r} encrypted", "pack it without a password")
            if info.compress_type == zipfile.ZIP_LZMA:  # its dictionary may need 4 GiB
                raise UserError(f"{path} holds {info.filename!r} compressed by LZMA", "compress it by deflate")
            yield Member(
                info.filename, info.file_size, info.filename.endswith("/"), partial(_zip_file, path, archive, info)
            )


def _tar_members(path: Path) -> Iterator[Member]:
    with _decompressed(path) as file, tarfile.open(fileobj=file, mode="r|", bufsize=BLOCK, tarinfo=_Header) as archive:
        for info in archive:
            if not (info.isreg() or info.isdir()):
                kind = "link" if info.issym() or info.islnk() else "device"
                raise UserError(f"{path} holds the {kind} {info.name!r}", "pack plain files only")
            name = info.name + ("/" if info.isdir() else "")
            yield Member(name, info.size, info.isdir(), partial(_tar_file, path, archive, info))
            archive.members = []  # type: ignore[attr-defined]  # otherwise every header stays in memory
        while file.read(BLOCK):  # to the end, where the compression's checksum is
            pass


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


OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": _Xz}


def _decompressed(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), _file)
    return cast(IO[bytes], opener(path))


@contextmanager
def _zip_file(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    with _broken_is_an_error(path), archive.open(info) as file:
        yield file
        if file.tell() < info.file_size and not file.read(1):
            raise zipfile.BadZipFile(f"{info.filename!r} is shorter than announced in the directory")


@contextmanager
def _tar_file(path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[IO[bytes]]:
    file = archive.extractfile(info)
    assert file is not None
    with _broken_is_an_error(path), file:
        yield file


def _limited(path: Path, found: Iterator[Member]) -> Iterator[Member]:
    """Yield the members as long as names, sizes and ratio are plausible. Raises UserError at the first that is not."""
    packed = max(path.stat().st_size, 1)
    total = 0
    for count, member in enumerate(found, 1):
        _check_name(path, member.name)
        total += member.size
        if count > MAX_MEMBERS:
            raise UserError(f"{path} holds more than {MAX_MEMBERS:,} members", "split it")
        if member.size > MAX_MEMBER_BYTES:
            raise UserError(
                f"{path} holds {member.name!r} of {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}", "remove it"
            )
        if total > MAX_TOTAL_BYTES:
            raise UserError(f"{path} holds more than {MAX_TOTAL_BYTES:,} bytes (at {member.name!r})", "split it")
        if total > RATIO_FROM_BYTES and total / packed > MAX_RATIO:
            raise UserError(
                f"{path} unpacks to more than {MAX_RATIO} times its size (at {member.name!r}): an archive bomb?",
                "if you trust it, unpack it and give the folder",
            )
        yield member


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or name[1:2] == ":" or "\0" in name:
        raise UserError(f"{path} holds {name!r}, which leads outside the archive", "pack it with relative names")


def visible(source: str, found: Iterator[Member]) -> Iterator[Member]:
    """Yield the members that are not hidden, with normalised names. Raises UserError if a name is not UTF-8."""
    for member in found:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if parts and parts[0] != "__MACOSX" and not any(part.startswith(".") for part in parts):
            name = "/".join(parts) + ("/" if member.is_folder else "")
            if any("\ud800" <= letter <= "\udfff" for letter in name):  # how Python shows bytes that are not UTF-8
                raise UserError(f"{source} holds {name!r}, a name that is not UTF-8", "rename it")
            yield Member(name, member.size, member.is_folder, member.open)


def _file(path: Path) -> IO[bytes]:
    return open(path, "rb")


def _no_file() -> IO[bytes]:
    raise AssertionError("a folder is not opened")
