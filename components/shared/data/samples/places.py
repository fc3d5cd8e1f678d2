"""The places of pictures that a manifest names: below its folder or prefix, or at s3:// addresses."""

import os
import posixpath
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple
from urllib.parse import unquote, urlsplit

from components.shared.core.printable import has_login
from components.shared.data.archives.folder import file_member
from components.shared.data.archives.member import Member
from components.shared.data.archives.ranged import local_bytes
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.sources.s3 import open_source_store, unchanged
from components.shared.data.sources.schemes import Listed
from components.shared.storage.client import Entry, Store
from components.shared.storage.errors import NoSuchObject

S3, FILE = "s3://", "file://"


class Misplaced(Exception):
    """A picture that cannot be read where it is said to be."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


class Place(NamedTuple):
    """A picture's name for people, what reads its bytes, and what looks for it; None if it is not there."""

    name: str
    read: Callable[[], bytes | None]
    find: Callable[[], Member | None]


class Places:
    """The places that a manifest may name."""

    def __init__(self, folder: Path | None = None, prefix: str = "") -> None:
        """Take the folder, or the prefix in S3, that relative paths begin at; of a manifest elsewhere none may."""
        self._folder, self._prefix = folder and folder.resolve(), prefix
        self._stores: dict[str, Store] = {}
        self._lock = Lock()

    def locate(self, text: str) -> Place:
        """Return the place that a path or an address names. Raises Misplaced if none may be there."""
        if text.startswith(S3):
            return self._object(text)
        if "://" in text and not text.startswith(FILE):
            raise Misplaced("is at an address that is not s3://", "download the pictures, and give their paths")
        if self._folder:
            return self._file(self._folder, text)
        if not self._prefix:
            raise Misplaced("is a path, and the manifest is at an https address", "give s3:// addresses")
        if text.startswith((FILE, "/")):
            raise Misplaced("is a path of a machine, and the manifest is in S3", "give paths relative to the manifest")
        return self._below(self._prefix, text)

    def _file(self, folder: Path, text: str) -> Place:
        path = unquote(urlsplit(text).path) if text.startswith(FILE) else text.replace("\\", "/")
        place = os.path.realpath(folder / path) if "\0" not in path else ""
        if not Path(place).is_relative_to(folder):
            raise Misplaced(f"leads outside of {folder}, where the manifest is", "put the pictures there")
        name = os.path.relpath(place, folder)
        return Place(name, partial(_content, place), partial(_file_at, name, place))

    def _below(self, prefix: str, text: str) -> Place:
        name = posixpath.normpath(text.replace("\\", "/"))
        if name.startswith(".."):
            raise Misplaced(f"leads outside of {prefix}, where the manifest is", "give its s3:// address")
        return self._object(f"{prefix}/{name}")._replace(name=name)

    def _object(self, uri: str) -> Place:
        bucket, _, key = uri.removeprefix(S3).partition("/")
        if has_login(uri) or not bucket or not key:
            raise Misplaced("is no address of an object", "give s3://bucket/key without a login")
        return Place(f"{bucket}/{key}", partial(self._read, bucket, key), partial(self._find, bucket, key))

    def _read(self, bucket: str, key: str) -> bytes | None:
        try:
            return self._store(bucket).get_bytes(key, limit=MAX_PICTURE_BYTES)[0]
        except NoSuchObject:
            return None

    def _find(self, bucket: str, key: str) -> Member | None:
        entry = self._store(bucket).stat(key)
        return Member(key, entry.size, False, _no_file, key=f"{S3}{bucket}/{key}", etag=entry.etag) if entry else None

    def _store(self, bucket: str) -> Store:
        with self._lock:
            return self._stores.setdefault(bucket, self._stores.get(bucket) or open_source_store(f"{S3}{bucket}"))

    def whole(self, picture: Listed) -> bytes:
        """Return a picture of a list. Raises UserError if it has changed since it was listed."""
        if not picture.key.startswith(S3):
            return local_bytes(picture.key, picture.etag)
        bucket, _, key = picture.key.removeprefix(S3).partition("/")
        return unchanged(self._store(bucket), Entry(key, picture.size, picture.etag, modified=None))


def _file_at(name: str, path: str) -> Member | None:
    return file_member(name, Path(path)) if os.path.isfile(path) else None


def _no_file() -> IO[bytes]:
    raise AssertionError("a picture in a list is not opened")


def _content(path: str) -> bytes | None:
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read(MAX_PICTURE_BYTES + 1)  # more is refused where it arrives
