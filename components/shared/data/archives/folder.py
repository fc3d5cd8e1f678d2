"""The files and folders below a folder, by name."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.archives.member import Member
from components.shared.data.archives.ranged import local_file
from components.shared.data.layout.file_kinds import junk_in


def folder_members(folder: Path) -> Iterator[Member]:
    """Yield what is below a folder. Raises UserError as `entries` does."""
    for name, path in entries(folder):
        if name.endswith("/"):
            yield Member(name, 0, True, _no_file)
        else:
            yield file_member(name, path)


def file_member(name: str, path: Path) -> Member:
    """Return a file on this machine under a name."""
    found, reads = path.stat(), partial(_file, path)
    state = str(found.st_mtime_ns)
    ranged = partial(local_file, str(path), state, found.st_size)
    return Member(
        name, found.st_size, False, reads, key=str(path), etag=state, place=partial(_link, path), ranged=ranged
    )


def entries(root: Path, start: Path | None = None, above: tuple[Path, ...] = ()) -> Iterator[tuple[str, Path]]:
    """Yield name and path of every file and folder (`name/`) below `root`, also where links to such folders lead.

    Raises UserError if a folder cannot be read, or a link leads to nothing, to a folder outside, or to one that holds
    the link, unless they are junk. `start` is a link that is being followed, from below the folders `above`.
    """
    for where, folders, files in os.walk(start or root, onerror=partial(_refuse_unreadable, root)):
        folders.sort()
        base = Path(where)
        inside = "" if base == root else base.relative_to(root).as_posix() + "/"
        if inside:
            yield inside, base
        for name in sorted(files):
            path = base / name
            if path.is_file():
                yield inside + name, path
            elif path.is_symlink():
                _refuse(root, path, "to no file", "remove it, or add the file itself")
        for path in (base / name for name in folders):
            if path.is_symlink() and _is_followed(root, path, within := (base.resolve(), *above)):
                yield from entries(root, path, within)


def _is_followed(root: Path, link: Path, above: tuple[Path, ...]) -> bool:
    """Return whether a link leads below `root` and not to what holds it. Raises UserError if not, unless it is junk."""
    target = link.resolve()
    is_outside = not target.is_relative_to(root.resolve())
    if is_outside:
        remedy = "copy the files into it, or give a folder that holds both"
        _refuse(root, link, f"to {target}, outside of it", remedy)
    is_loop = any(place.is_relative_to(target) for place in above)
    if is_loop:
        _refuse(root, link, f"to {target}, which holds it", "remove it")
    return not (is_outside or is_loop)


def _refuse(root: Path, link: Path, where: str, remedy: str) -> None:
    name = link.relative_to(root).as_posix()
    if not junk_in(name):
        raise UserError(f"{root} holds {name!r}, a link {where}", remedy)


def _refuse_unreadable(root: Path, error: OSError) -> None:
    """Raise UserError for a folder that os.walk cannot read and would leave out, unless it is junk."""
    if junk_in(os.path.relpath(error.filename, root)):
        log.info(f"left out: {error.filename} cannot be read ({error.strerror})")
        return
    raise UserError(f"{error.filename} cannot be read ({error.strerror})", "allow reading it, or move it elsewhere")


def _file(path: Path) -> IO[bytes]:
    return open(path, "rb")


def _link(path: Path, place: Path) -> None:
    place.symlink_to(path.absolute())


def _no_file() -> IO[bytes]:
    raise AssertionError("a folder is not opened")
