"""Archives within an archive, a folder or a bucket, read in their place."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from components.shared.data.archives.broken import source_named
from components.shared.data.archives.kinds import SUFFIXES, is_archive
from components.shared.data.archives.member import Member
from components.shared.data.layout.file_kinds import junk_in


def is_nested_archive(member: Member) -> bool:
    """Return whether a member is an archive, by its name."""
    return is_archive(Path(member.name)) and not member.is_folder and not junk_in(member.name)


def unnested(found: Iterator[Member], read: Callable[[Member], Iterator[Member]]) -> Iterator[Member]:
    """Yield the members of archives in place of these, as `read` yields them, in folders that are named after them.

    Archives in archives are yielded as they are.
    """
    for member in found:
        if is_nested_archive(member):
            for inner in read(member):
                yield replace(inner, name=f"{stem(member.name)}/{inner.name}")
        else:
            yield member


def stem(name: str) -> str:
    """Return an archive's name without its suffix."""
    return name[: -len(_suffix(name))]


def copied(read: Callable[[Path], Iterator[Member]], source: str, folder: Path, member: Member) -> Iterator[Member]:
    """Yield the members of an archive by way of a copy in `folder`, as `read` yields them.

    Raises UserError, which names `source`, if it cannot be read.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        copy = Path(scratch) / f"nested{_suffix(member.name)}"
        member.save(copy)
        with source_named(copy, f"{source}: {member.name}"):
            yield from read(copy)


def _suffix(name: str) -> str:
    return max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len)
