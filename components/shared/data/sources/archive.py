"""The members of a folder, a zip or a tar archive, read safely: nothing is ever extracted to disk."""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.broken import broken_is_an_error
from components.shared.data.archives.kinds import TAR, ZIP, archive_kind
from components.shared.data.archives.limits import limited
from components.shared.data.archives.member import Member
from components.shared.data.archives.names import plain
from components.shared.data.archives.tar_reader import tar_members
from components.shared.data.archives.zip_reader import zip_members
from components.shared.data.layout.file_kinds import junk_in


def members(path: Path) -> Iterator[Member]:
    """Yield the members of a folder (by name) or an archive (in its own order), in constant memory for tar.

    A tar member can be opened only while it is the current one. Hidden files and other junk are among them.
    Raises UserError, also while a member is read, if a member's name leads outside or is not UTF-8, if it is a link, a
    device or encrypted, if the members are too many or too large for the archive's own size, if unpacking needs too
    much memory, or if the archive is broken.
    """
    if path.is_dir():
        yield from normalized(str(path), _folder_members(path))
    else:
        with broken_is_an_error(path):
            reader = {ZIP: zip_members, TAR: tar_members}[archive_kind(path, str(path))]
            yield from normalized(str(path), limited(path, reader(path)))


def _folder_members(folder: Path) -> Iterator[Member]:
    for where, folders, files in os.walk(folder, onerror=partial(refuse_unreadable, folder)):
        folders.sort()
        base = Path(where)
        inside = "" if base == folder else base.relative_to(folder).as_posix() + "/"
        if inside:
            yield Member(inside, 0, True, _no_file)
        for name in sorted(files) + folders:
            path = base / name
            if path.is_file():
                yield Member(inside + name, path.stat().st_size, False, partial(_file, path))
            elif path.is_symlink() and not junk_in(inside + name):
                raise UserError(
                    f"{folder} holds {inside + name!r}, a link to no file", "remove it, or add the file itself"
                )


def refuse_unreadable(root: Path, error: OSError) -> None:
    """Raise UserError for a folder in `root` that os.walk cannot read and would leave out, unless it is junk."""
    if junk_in(os.path.relpath(error.filename, root)):
        log.info(f"left out: {error.filename} cannot be read ({error.strerror})")
        return
    raise UserError(f"{error.filename} cannot be read ({error.strerror})", "allow reading it, or move it elsewhere")


def normalized(source: str, found: Iterator[Member]) -> Iterator[Member]:
    """Yield the members with one spelling of each name. Raises UserError if one is not UTF-8, unless it is junk's."""
    for member in found:
        name = "/".join(part for part in plain(member.name).split("/") if part not in ("", "."))
        if not name:
            continue
        if any("\ud800" <= letter <= "\udfff" for letter in name) and not junk_in(name):  # how Python shows other bytes
            raise UserError(f"{source} holds {name!r}, a name that is not UTF-8", "rename it")
        yield replace(member, name=name + "/" * member.is_folder)


def _file(path: Path) -> IO[bytes]:
    return open(path, "rb")


def _no_file() -> IO[bytes]:
    raise AssertionError("a folder is not opened")
