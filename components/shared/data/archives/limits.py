"""Limits of what an archive may hold, so that a small file cannot fill memory, disks or days."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from components.shared.core.errors import UserError
from components.shared.data.archives.kinds import ArchiveFile
from components.shared.data.archives.member import Member

MAX_MEMBERS = 20_000_000
MAX_MEMBER_BYTES = 16 * 2**30
MAX_TOTAL_BYTES = 16 * 2**40
MAX_NAME = 4096  # letters, as many as a path on Linux may have
MAX_RATIO = 200  # unpacked to packed bytes: pictures stay near 1, deflate can reach 1,032
RATIO_FROM_BYTES = 64 * 2**20  # a high ratio below that is harmless


class CountedStream:
    """The decompressed bytes of an archive, as long as they are plausible for its size."""

    def __init__(self, path: ArchiveFile, file: IO[bytes]) -> None:
        """Count the bytes that are read from the file, which is at its start."""
        self._path, self._file, self._packed, self._count = path, file, path.stat().st_size, 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises UserError if they are too many for the archive's size."""
        block = self._file.read(size)
        self._count += len(block)
        _check_total(self._path, self._count, self._packed, "")
        return block


def limited(path: ArchiveFile, found: Iterator[Member]) -> Iterator[Member]:
    """Yield the members as long as names, sizes and ratio are plausible. Raises UserError at the first that is not."""
    packed = path.stat().st_size
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
        _check_total(path, total, packed, f" (at {member.name!r})")
        yield member


def check_length(path: ArchiveFile, name: str | bytes) -> None:
    """Raise UserError if a name, or the bytes of one that is not decoded yet, is too long."""
    if len(name) > MAX_NAME:
        unit = "letters" if isinstance(name, str) else "bytes"
        raise UserError(f"{path} holds a name of {len(name):,} {unit}, more than {MAX_NAME:,}", "shorten it")


def _check_total(path: ArchiveFile, total: int, packed: int, place: str) -> None:
    if total > MAX_TOTAL_BYTES:
        raise UserError(f"{path} holds more than {MAX_TOTAL_BYTES:,} bytes{place}", "split it")
    if total > RATIO_FROM_BYTES and total / max(packed, 1) > MAX_RATIO:
        raise UserError(
            f"{path} unpacks to more than {MAX_RATIO} times its size{place}: an archive bomb?",
            "if you trust it, unpack it and give the folder",
        )


def _check_name(path: ArchiveFile, name: str) -> None:
    check_length(path, name)
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or name[1:2] == ":" or "\0" in name:
        raise UserError(f"{path} holds {name!r}, which leads outside the archive", "pack it with relative names")
