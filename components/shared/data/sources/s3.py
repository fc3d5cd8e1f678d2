"""A data set in S3: an archive, a table, or pictures below a prefix."""

import gzip
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.files import scratch_of
from components.shared.core.printable import bounded
from components.shared.data.archives.kinds import is_archive, refuse_unread_name
from components.shared.data.archives.member import Member
from components.shared.data.archives.ranged import RangedFile
from components.shared.data.layout.file_kinds import PICTURE, START_BYTES, kind_by_name
from components.shared.data.layout.reading import Reading
from components.shared.data.parts.reading import ANY_SIZE, READERS, read_listed
from components.shared.data.parts.source_listing import list_archive, list_pictures
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.samples.tables import MANIFESTS, Pictures, is_table, list_table, pack_table
from components.shared.data.sources.archive import normalized
from components.shared.data.sources.packing import archive_path, describe_archive, pack
from components.shared.data.sources.schemes import Listed, RawDescription, State
from components.shared.storage.client import Entry, Store, open_store
from components.shared.storage.errors import NoSuchObject

PREFIX = "SOURCE_"  # of the variables for data in another S3 than our own


class S3Archive:
    """A Source: an archive at s3://bucket/prefix/name."""

    def __init__(self, uri: str) -> None:
        """Open the store. Raises UserError if the address, or a variable of the environment, is wrong."""
        parent, _, self._name = uri.rpartition("/")
        self._uri, self._store = uri, open_source_store(parent)

    def version(self) -> str:
        """Return the file's ETag. Raises UserError if it does not exist."""
        return self.state().version

    def state(self) -> State:
        """Return the file's ETag and size. Raises UserError if it does not exist."""
        entry = self._entry()
        return State(f"ETag: {bounded(entry.etag)}", entry.size)

    def fetch(self, folder: Path, reading: Reading) -> RawDescription:
        """Copy the archive to the folder and describe it."""
        copy = archive_path(self._name, folder)
        self._store.get_file(self._name, copy)
        return describe_archive(copy, self._uri, reading)

    def listing(self, reading: Reading, store: str = "") -> Pictures:
        """List the pictures. Raises UserError if no part of the file can be read alone."""
        return self._list(_ranged(self._store, self._entry()), reading, store)

    def read(self, pictures: Sequence[Listed]) -> Iterator[bytes]:
        """Yield the content of pictures, many of them read ahead. Raises TransientError if the file has changed."""
        return _read(self._store, pictures)

    def _entry(self) -> Entry:
        entry = self._store.stat(self._name)
        if not entry:
            raise UserError(f"data={self._uri} does not exist", "check the address")
        return entry

    def _list(self, file: RangedFile, reading: Reading, store: str) -> Pictures:
        return list_archive(file, self._uri, reading, store)


class S3Table(S3Archive):
    """A Source: a table at s3://bucket/prefix/name."""

    def state(self) -> State:
        """Return the table's ETag; of a manifest in CSV a digest over all that is beside it, or in folders there."""
        state = super().state()
        return state_of(self._store) if self._name.lower().endswith(MANIFESTS) else state

    def fetch(self, folder: Path, reading: Reading) -> RawDescription:
        """Pack the pictures of the table into the folder and describe them."""
        file = Member(self._name, 0, False, _no_file, place=partial(self._store.get_file, self._name))
        return pack_table(file, self._uri, reading, folder, prefix=self._store.uri())

    def holds(self, store: str) -> bool:
        """Return whether the store is beside a manifest in CSV, or in folders there."""
        return self._name.lower().endswith(MANIFESTS) and self._store.contains(open_store(store, os.environ))

    def _list(self, file: RangedFile, reading: Reading, store: str) -> Pictures:
        return list_table(file, self._name, self._uri, reading, prefix=self._store.uri())

    def read(self, pictures: Sequence[Listed]) -> Iterator[bytes]:
        """Yield the content of pictures, as of an archive; those of a manifest are at addresses of their own."""
        from components.shared.data.samples.places import Places

        return read_listed(pictures, Places().whole, partial(_opened, self._store))


class S3Prefix:
    """A Source: the objects below s3://bucket/prefix."""

    def __init__(self, uri: str) -> None:
        """Open the store. Raises UserError if the address, or a variable of the environment, is wrong."""
        self._uri, self._store = uri, open_source_store(uri)
        self._entries: _Entries | None = None

    def version(self) -> str:
        """Return a digest over names, sizes and ETags of all objects. Raises UserError if there are none."""
        return self.state().version

    def state(self) -> State:
        """Return that digest, and the size of all objects. Raises UserError if there are none."""
        return (self._entries and self._entries.state) or state_of(self._store)

    def holds(self, store: str) -> bool:
        """Return whether the store is below the prefix."""
        return self._store.contains(open_store(store, os.environ))

    def fetch(self, folder: Path, reading: Reading) -> RawDescription:
        """Pack the pictures into the folder and describe them."""
        return pack(
            partial(_members, self._store, self._store.list),
            partial(_pictures, self._store),
            self._uri,
            reading,
            folder,
        )

    def listing(self, reading: Reading, store: str = "") -> Pictures:
        """List the pictures, and the store once."""
        self._entries = _Entries(self._store)
        return list_pictures(partial(_members, self._store, self._entries.read), self._uri, reading, store)

    def read(self, pictures: Sequence[Listed]) -> Iterator[bytes]:
        """Yield the content of pictures, with many of them read ahead. Raises TransientError if one has changed."""
        return _read(self._store, pictures)


class _Entries:
    """The objects of a store, which is listed when they are read first; later they come from a file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.state: State | None = None  # once all are listed
        self._path = scratch_of(self) / "entries.gz"

    def read(self) -> Iterator[Entry]:
        """Yield all."""
        if self.state:
            with gzip.open(self._path, "rt") as lines:
                for name, size, etag in map(json.loads, lines):
                    yield Entry(name, size, etag, modified=None)
            return
        digest = _ListingDigest()
        with gzip.open(self._path, "wt", compresslevel=1) as lines:
            for entry in self._store.list():
                digest.add(entry)
                lines.write(json.dumps(entry[:3]) + "\n")
                yield entry
        self.state = digest.state(self._store)


class _ListingDigest:
    """A digest over names, sizes and ETags of the objects of a store, and the sum of the sizes."""

    def __init__(self) -> None:
        self._digest, self._count, self._bytes = hashlib.sha256(), 0, 0

    def add(self, entry: Entry) -> None:
        self._digest.update(f"{entry.name}\0{entry.size}\0{entry.etag}\0".encode())
        self._count += 1
        self._bytes += entry.size

    def state(self, store: Store) -> State:
        if not self._count:
            raise UserError(f"data={store.uri()} holds no objects", "check the address")
        return State(f"listing:{self._digest.hexdigest()}", self._bytes)


def state_of(store: Store) -> State:
    """Return a digest over names, sizes and ETags of all objects of a store, and the sum of the sizes.

    Raises UserError if there are none.
    """
    digest = _ListingDigest()
    for entry in store.list():
        digest.add(entry)
    return digest.state(store)


def open_source(data: str) -> S3Archive | S3Prefix:
    """Open an address. Raises UserError if it, or a variable of the environment, is wrong."""
    refuse_unread_name(f"data={data}", data)
    if is_table(data):
        return S3Table(data)
    return S3Archive(data) if is_archive(Path(data)) else S3Prefix(data)


def open_source_store(uri: str) -> Store:
    """Open the store at s3://bucket/prefix by the variables SOURCE_AWS_... or, if there are none, by AWS_..."""
    is_foreign = any(value for name, value in os.environ.items() if name.startswith(f"{PREFIX}AWS_"))
    return open_store(uri, os.environ, PREFIX if is_foreign else "")


def _members(store: Store, entries: Callable[[], Iterator[Entry]]) -> Iterator[Member]:
    """Yield all members, with the first bytes of many read ahead where the name does not tell the kind."""
    with ThreadPoolExecutor(READERS) as readers:
        found = (_member(store, entry, readers) for entry in entries())
        yield from normalized(store.uri(), _ahead(found))


def _member(store: Store, entry: Entry, readers: ThreadPoolExecutor) -> Member:
    place = partial(store.get_file, entry.name)  # not by way of the memory
    member = Member(
        entry.name,
        entry.size,
        False,
        partial(_open, store, entry),
        key=entry.name,
        etag=entry.etag,
        place=place,
        ranged=partial(_ranged, store, entry),
    )
    if kind_by_name(entry.name):
        return member
    start = readers.submit(store.get_start, entry.name, START_BYTES) if entry.size else None
    return replace(member, read_start=start.result if start else bytes)


def _pictures(store: Store, is_wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield what may be pictures by name and is wanted, with many of them read ahead."""
    with ThreadPoolExecutor(READERS) as readers:
        found = (
            Member(entry.name, entry.size, False, readers.submit(_open, store, entry).result)
            for entry in store.list()
            if kind_by_name(entry.name) in (PICTURE, None) and entry.size <= MAX_PICTURE_BYTES and is_wanted(entry.name)
        )
        yield from normalized(store.uri(), _ahead(found))


def _ahead(found: Iterator[Member]) -> Iterator[Member]:
    """Yield members some places behind, so that what they read in the background is there."""
    waiting: deque[Member] = deque()
    for member in found:
        waiting.append(member)
        if len(waiting) > 2 * READERS:
            yield waiting.popleft()
    yield from waiting


def _read(store: Store, pictures: Sequence[Listed]) -> Iterator[bytes]:
    def whole(picture: Listed) -> bytes:
        return _open(store, Entry(picture.key, picture.size, picture.etag, modified=None)).read()

    return read_listed(pictures, whole, partial(_opened, store))


def _opened(store: Store, key: str, etag: str) -> RangedFile:
    return _ranged(store, Entry(key, ANY_SIZE, etag, modified=None))


def _ranged(store: Store, entry: Entry) -> RangedFile:
    fetch = partial(store.get_range, entry.name, entry.etag)
    return RangedFile(store.uri(entry.name), entry.name, entry.etag, entry.size, fetch)


def _no_file() -> IO[bytes]:
    raise AssertionError("a table is saved, not opened")


def _open(store: Store, entry: Entry) -> IO[bytes]:
    return io.BytesIO(unchanged(store, entry))


def unchanged(store: Store, entry: Entry) -> bytes:
    """Return the bytes of an object. Raises TransientError if it has changed since it was listed."""
    try:
        content, etag = store.get_bytes(entry.name, limit=max(entry.size, MAX_PICTURE_BYTES))
    except (CorruptDataError, NoSuchObject):  # it has grown, or is gone
        etag = ""
    if etag != entry.etag:
        raise TransientError(f"{store.uri(entry.name)} changed while it was read", "run it again")
    return content
