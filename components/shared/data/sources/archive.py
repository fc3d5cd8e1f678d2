"""The members of a folder, a zip or a tar archive, read safely: nothing is ever extracted to disk."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from components.shared.core.errors import UserError
from components.shared.data.archives.broken import broken_is_an_error
from components.shared.data.archives.folder import folder_members
from components.shared.data.archives.kinds import TAR, ZIP, ArchiveFile, archive_kind
from components.shared.data.archives.limits import limited
from components.shared.data.archives.member import Member
from components.shared.data.archives.names import parts_of
from components.shared.data.archives.tar_reader import tar_members
from components.shared.data.archives.zip_reader import zip_members
from components.shared.data.layout.file_kinds import junk_in


def members(path: ArchiveFile) -> Iterator[Member]:
    """Yield the members of a folder (by name) or an archive (in its own order), in constant memory for tar.

    A tar member can be opened only while it is the current one. Hidden files and other junk are among them.
    Raises UserError, also while a member is read, if a name or link leads outside, if a name is not UTF-8, if a member
    is a device or encrypted, if the members are too many or too large for the archive's own size, if unpacking needs
    too much memory, or if the archive is broken.
    """
    if isinstance(path, Path) and path.is_dir():
        yield from normalized(str(path), folder_members(path))
    else:
        with broken_is_an_error(path):
            reader = {ZIP: zip_members, TAR: tar_members}[archive_kind(path, str(path))]
            yield from normalized(str(path), limited(path, reader(path)))


def normalized(source: str, found: Iterator[Member]) -> Iterator[Member]:
    """Yield the members with one spelling of each name. Raises UserError if one is not UTF-8, unless it is junk's."""
    for member in found:
        name = "/".join(parts_of(member.name))
        if not name:
            continue
        if any("\ud800" <= letter <= "\udfff" for letter in name) and not junk_in(name):  # how Python shows other bytes
            raise UserError(f"{source} holds {name!r}, a name that is not UTF-8", "rename it")
        yield replace(member, name=name + "/" * member.is_folder)
