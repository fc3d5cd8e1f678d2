"""The members of a zip archive."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from components.shared.core.errors import UserError
from components.shared.data.archives.broken import broken_is_an_error
from components.shared.data.archives.member import Member
from components.shared.data.archives.names import UTF8, find_encoding, unicode_path

IS_UTF8 = 0x800  # the flag of a name in UTF-8


def zip_members(path: Path) -> Iterator[Member]:
    """Yield the members of a zip archive in the order of its directory. Raises UserError at one that is not plain."""
    with zipfile.ZipFile(path) as archive:
        for info, name in zip(archive.infolist(), _names(path, archive.infolist()), strict=True):
            if info.external_attr >> 28 == 0o12:
                raise UserError(f"{path} holds the link {name!r}", "pack the file itself")
            if info.flag_bits & 1:
                raise UserError(f"{path} holds {name!r} encrypted", "pack it without a password")
            if info.compress_type == zipfile.ZIP_LZMA:  # its dictionary may need 4 GiB
                raise UserError(f"{path} holds {name!r} compressed by LZMA", "compress it by deflate")
            is_folder = name.replace("\\", "/").endswith("/")
            yield Member(name, info.file_size, is_folder, partial(_open, path, archive, info))


def _names(path: Path, infos: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield the members' names, those that are in no stated encoding decoded by the likeliest for all of them."""
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


@contextmanager
def _open(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    with broken_is_an_error(path), archive.open(info) as file:
        yield file
        if file.tell() < info.file_size and not file.read(1):
            raise zipfile.BadZipFile(f"{info.filename!r} is shorter than announced in the directory")
