"""A data set on this machine: a folder, an archive, a table or a picture, named by a path or a file:// URI."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.shared.core.errors import UserError
from components.shared.data.archives.folder import entries, file_member
from components.shared.data.archives.kinds import (
    SUFFIXES,
    archive_kind,
    is_archive,
    refuse_unread_name,
)
from components.shared.data.archives.ranged import RangedFile, local_file
from components.shared.data.layout.file_kinds import PICTURE, junk_in, kind_by_name
from components.shared.data.layout.reading import Reading
from components.shared.data.parts.reading import ANY_SIZE, read_listed
from components.shared.data.parts.source_listing import list_archive, list_pictures
from components.shared.data.prepared_data import is_prepared_folder
from components.shared.data.samples.tables import MANIFESTS, TABLES, Pictures, is_table, list_table, pack_table
from components.shared.data.sources.archive import members
from components.shared.data.sources.packing import archive_path, describe_archive, pack
from components.shared.data.sources.schemes import UNLISTED, Listed, RawDescription, State, Unlisted

PREPARED = "give the pictures that it was made from; only a prediction takes it as it is"


class LocalSource:
    """A Source: a folder or a table whose pictures are packed, an archive that is copied, or one picture."""

    def __init__(self, path: Path) -> None:
        """Check the path. Raises UserError if there is nothing that can be read, or it is a prepared dataset."""
        if not os.path.exists(path):  # also False if no file can have such a name
            raise UserError(f"data={path} does not exist", f"give a folder, or an archive ({', '.join(SUFFIXES)})")
        refuse_unread_name(f"data={path}", path.name)
        self._is_picture = path.is_file() and kind_by_name(path.name) == PICTURE
        is_other = not path.is_dir() and not is_archive(path) and not is_table(path.name) and not self._is_picture
        if is_other and kind_by_name(path.name):
            accepted = ", ".join((*SUFFIXES, *TABLES))
            raise UserError(f"data={path} is no folder, archive or table", f"give one of {accepted}")
        if is_prepared_folder(path):
            raise UserError(f"data={path} is a prepared dataset, whose pictures are no files", PREPARED)
        self._path = path

    def version(self) -> str:
        """Return a digest over the names, sizes and times of all files but junk, also beside a manifest in CSV."""
        return self.state().version

    def state(self) -> State:
        """Return that digest, and the size of these files."""
        if self._path.is_file() and not is_table(self._path.name) and not self._is_picture:
            archive_kind(self._path, f"data={self._path}")
        is_manifest = self._path.name.lower().endswith(MANIFESTS) and self._path.is_file()
        return fingerprint(self._path.parent if is_manifest else self._path)

    def fetch(self, folder: Path, reading: Reading) -> RawDescription:
        """Pack the pictures of the folder or the table, or the one picture; or copy the archive. Describe them."""
        if self._path.is_dir():
            return self._pack(self._path, reading, folder)
        if is_table(self._path.name):
            table = file_member(self._path.name, self._path)
            return pack_table(table, str(self._path), reading, folder, at=self._path.parent)
        if self._is_picture:
            with tempfile.TemporaryDirectory() as alone:
                shutil.copyfile(self._path, Path(alone) / self._path.name)
                return self._pack(Path(alone), reading, folder)
        copy = archive_path(self._path.name, folder)
        shutil.copyfile(self._path, copy)
        return describe_archive(copy, str(self._path), reading)

    def _pack(self, pictures: Path, reading: Reading, folder: Path) -> RawDescription:
        found = partial(members, pictures)
        return pack(found, lambda _: found(), str(self._path), reading, folder)

    def listing(self, reading: Reading, store: str = "") -> Pictures:
        """List the pictures of a folder, an archive or a table. Raises UserError if no part of it can be read alone."""
        if self._path.is_dir():
            return list_pictures(partial(members, self._path), str(self._path), reading, store)
        if self._is_picture:
            raise Unlisted(f"data={self._path} is one picture", UNLISTED)
        state = self._path.stat()
        file = local_file(str(self._path), str(state.st_mtime_ns), state.st_size)
        if is_table(self._path.name):
            return list_table(file, self._path.name, str(self._path), reading, at=self._path.parent)
        return list_archive(file, str(self._path), reading, store)

    def read(self, pictures: Sequence[Listed]) -> Iterator[bytes]:
        """Yield the content of pictures. Raises UserError if one has changed since it was listed."""
        from components.shared.data.samples.places import Places

        whole = Places().whole
        if any(picture.span or picture.row for picture in pictures):
            return read_listed(pictures, whole, _opened)
        return map(whole, pictures)  # a file is read faster than handed over by another thread


def _opened(key: str, etag: str) -> RangedFile:
    return local_file(key, etag, ANY_SIZE)


def open_source(data: str) -> LocalSource:
    """Open a path or a file:// URI. Raises UserError as LocalSource does."""
    if not data.startswith("file://"):
        return LocalSource(Path(data))
    parts = urlsplit(data)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise UserError(f"data={data} has a host, ? or #", "give file:///path, with %3F for ? and %23 for #")
    return LocalSource(Path(unquote(parts.path)))


def fingerprint(path: Path) -> State:
    """Return a digest over the names, sizes and modification times of a path's files, and the sum of the sizes."""
    digest, size = hashlib.sha256(), 0
    below = (file for name, file in entries(path) if not (name.endswith("/") or junk_in(name)))
    for file in [path] if path.is_file() else below:
        state = file.stat(follow_symlinks=file.exists())
        digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
        size += state.st_size
    return State(f"listing:{digest.hexdigest()}", size)
