"""The files of a folder, an archive or a bucket as raw data: pictures packed into tar shards, or copied IDX files.

They become few large files, because a cluster copies artifacts file by file.
"""

import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.member import Member
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.sources.archive import SUFFIXES, members
from components.shared.data.sources.folder_layout import find_layout, is_picture
from components.shared.data.sources.idx import IDX_NAME, describe_idx
from components.shared.data.sources.schemes import RawDescription

SHARD_BYTES = 256 * 2**20

Members = Callable[[], Iterator[Member]]


def archive_path(name: str, folder: Path) -> Path:
    """Return the path in `folder` for a copy of an archive of that name: a fixed name with the archive's suffix."""
    return folder / f"download{''.join(suffix for suffix in SUFFIXES if name.lower().endswith(suffix))}"


def describe_archive(archive: Path, source: str) -> RawDescription:
    """Describe an archive that is alone in its folder: pictures stay packed, IDX files replace the archive.

    Raises UserError, naming `source`, if it cannot be read safely or holds no classification set.
    """
    folders, has_idx = _count_pictures(members(archive), source)
    if has_idx:
        return _copy_idx(members(archive), source, archive.parent)
    return _describe_pictures(folders, source) | {"files": [archive.name]}


def pack(list_all: Members, read_pictures: Members, source: str, folder: Path) -> RawDescription:
    """Pack pictures into tar shards in `folder`, or copy IDX files there, and describe them.

    `list_all` yields all members of the source, `read_pictures` at least its pictures in the same order. Raises
    UserError, naming `source`, if it holds no classification set.
    """
    folders, has_idx = _count_pictures(list_all(), source)
    if has_idx:
        return _copy_idx(list_all(), source, folder)
    description = _describe_pictures(folders, source)
    progress = log.Progress(f"pack {description['name']}", sum(folders.values()), "pictures")
    return description | {"files": _pack(read_pictures(), folder, progress)}


def _count_pictures(found: Iterator[Member], source: str) -> tuple[Counter[str], bool]:
    """Return the number of pictures in each folder, and whether there are IDX files and no pictures."""
    folders: Counter[str] = Counter()
    has_idx = False
    for member in found:
        parent, _, name = member.name.rstrip("/").rpartition("/")
        has_idx |= IDX_NAME.fullmatch(name) is not None and not member.is_folder
        if member.is_folder:
            folders[member.name.rstrip("/")] += 0
        elif is_picture(member.name):
            if member.size > MAX_PICTURE_BYTES:
                raise UserError(
                    f"{source} holds {member.name} of {member.size:,} bytes, more than {MAX_PICTURE_BYTES:,}",
                    "shrink it",
                )
            folders[parent] += 1
    return folders, has_idx and not sum(folders.values())


def _describe_pictures(folders: Counter[str], source: str) -> RawDescription:
    layout, counts = find_layout(source, folders)
    return {
        "name": _name(source),
        "kind": "pictures",
        "classes": sorted({name for found in counts.values() for name in found}),
        "counts": {split: sum(found.values()) for split, found in counts.items()},
        "files": [],
        "layout": layout.model_dump(),
    }


def _name(source: str) -> str:
    return Path(urlsplit(source).path).name or source


def _pack(found: Iterator[Member], folder: Path, progress: log.Progress) -> Sequence[str]:
    """Write pictures to few tar files: the same bytes for the same pictures, whatever their times and owners."""
    shards: list[str] = []
    pictures = (member for member in found if not member.is_folder and is_picture(member.name))
    member = next(pictures, None)
    while member:
        shards.append(f"pictures-{len(shards):05}.tar")
        written = 0
        with tarfile.open(folder / shards[-1], "w", format=tarfile.PAX_FORMAT) as shard:
            while member and written < SHARD_BYTES:
                written += _add(shard, member)
                progress.advance(1)
                member = next(pictures, None)
    return shards


def _add(shard: tarfile.TarFile, member: Member) -> int:
    info = tarfile.TarInfo(member.name)
    info.size = member.size
    with member.open() as content:
        shard.addfile(info, content)
    return member.size


def _copy_idx(found: Iterator[Member], source: str, folder: Path) -> RawDescription:
    """Copy the IDX files to the folder, and leave nothing else there."""
    name = _name(source)
    for member in found:
        base = member.name.rpartition("/")[2]
        if IDX_NAME.fullmatch(base):
            path = folder / base.replace(".idx", "-idx")
            if path.exists():
                raise UserError(f"{name} holds {path.name} twice", "give the folder or archive of one data set")
            with member.open() as content, open(path, "wb") as copy:
                shutil.copyfileobj(content, copy)
    description = describe_idx(folder, name)
    for extra in set(os.listdir(folder)) - set(description["files"]):  # the archive, and .gz twins of files
        os.remove(folder / extra)
    return description
