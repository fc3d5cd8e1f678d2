"""Which files are archives: by their first bytes, else by their name."""

import re
from pathlib import Path
from typing import IO, Literal, Protocol

from components.shared.core.errors import UserError
from components.shared.core.web_page import title_of
from components.shared.data.archives.broken import AGAIN

SUFFIXES = (
    *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2"),
    *(".tar.xz", ".txz", ".tar.zst", ".tzst"),
)
ZIP, TAR = "zip", "tar"
GZIP, BZIP2, XZ, ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"  # what a compressed tar begins with
MAGICS = {
    b"PK\3\4": ZIP,
    b"PK\5\6": ZIP,  # without members
    **dict.fromkeys((GZIP, BZIP2, XZ, ZSTD), TAR),
}
UNREAD_MAGICS = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x04\x22\x4d\x18": "LZ4", b"LZIP": "lzip"}
UNREAD_SUFFIXES = {".7z": "7z", ".rar": "RAR", ".lz4": "LZ4", ".lz": "lzip"}
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.I | re.S)
PAGE_BYTES = 2**16  # in which a page has its title
QUOTED = 40  # of what a file begins with


class _State(Protocol):
    @property
    def st_size(self) -> int: ...


class ArchiveFile(Protocol):
    """A file as the readers of archives take it: a path, or what is read elsewhere; as a text it names the file."""

    @property
    def name(self) -> str:
        """Return its last part."""
        ...

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Open it for reading, from any place."""
        ...

    def stat(self) -> _State:
        """Return its size."""
        ...


def opened(file: ArchiveFile) -> Path | IO[bytes]:
    """Return what the libraries open: a path, which they close, or a file that needs not be closed."""
    return file if isinstance(file, Path) else file.open("rb")


def is_archive(path: Path) -> bool:
    """Return whether the file's name is that of an archive that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def archive_kind(path: ArchiveFile, source: str) -> str:
    """Return ZIP or TAR. Raises UserError, naming `source`, if the file is neither."""
    start = first_bytes(path)
    refuse_page(start, source)
    _refuse_unread(source, next((kind for magic, kind in UNREAD_MAGICS.items() if start.startswith(magic)), ""))
    if known := _known_kind(start):
        return known
    if path.name.lower().endswith(SUFFIXES):  # a zip may begin with a program, a tar may be of the oldest format
        return ZIP if path.name.lower().endswith(".zip") else TAR
    raise UserError(f"{source} cannot be read as an archive (it begins with {start[:QUOTED]!r})", AGAIN)


def first_bytes(path: ArchiveFile) -> bytes:
    """Return the start of a file, in which a web page has its title."""
    with path.open("rb") as file:
        return file.read(PAGE_BYTES)


def refuse_page(start: bytes, source: str) -> None:
    """Raise UserError, naming `source`, if a file that begins so is a web page."""
    if not PAGE.match(start):
        return
    text = start.decode(errors="replace").lstrip("\ufeff \t\r\n")
    title = title_of(text)
    named = "" if title is None else f", with the title {title[:80]!r}"
    raise UserError(
        f"{source} is a web page, not an archive: it begins with {text[:QUOTED]!r}{named}",
        "open it in a browser, where it may ask you to log in or to confirm, and give the file that it leads to",
    )


def refuse_unread_name(source: str, name: str) -> None:
    """Raise UserError, naming `source`, if a name is that of an archive of a kind that is not read."""
    _refuse_unread(source, next((kind for end, kind in UNREAD_SUFFIXES.items() if name.lower().endswith(end)), ""))


def is_unread_archive(name: str) -> bool:
    """Return whether a name is that of an archive of a kind that is not read."""
    return name.lower().endswith(tuple(UNREAD_SUFFIXES))


def _known_kind(start: bytes) -> str:
    known = next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), "")
    return known or (TAR if start[257:262] == b"ustar" else "")


def _refuse_unread(source: str, kind: str) -> None:
    if kind:
        raise UserError(f"{source} is a {kind} archive, which is not read", "unpack it, and pack it as zip or tar")
