"""A data set that lies in S3: an archive, or pictures below a prefix."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO

from components.shared.core.errors import UserError
from components.shared.data.sources.archive import Member, visible
from components.shared.data.sources.folder_layout import is_picture
from components.shared.storage.client import Entry, Store, open_store

PREFIX = "SOURCE_"  # of the variables, where the data lies in another S3 than our own
READERS = 16  # objects read at the same time


def open_source(uri: str) -> Store:
    """The store at s3://bucket/prefix, by the variables SOURCE_AWS_... or, where there are none, by AWS_..."""
    is_foreign = any(value for name, value in os.environ.items() if name.startswith(f"{PREFIX}AWS_"))
    return open_store(uri, os.environ, PREFIX if is_foreign else "")


def open_object(uri: str) -> tuple[Store, str]:
    """The store around the object at s3://bucket/prefix/name, and the object's name."""
    parent, _, name = uri.rpartition("/")
    return open_source(parent), name


def object_version(uri: str) -> str:
    """The ETag of one object; UserError where it is not there."""
    store, name = open_object(uri)
    entry = store.stat(name)
    if not entry:
        raise UserError(f"data={uri} does not exist; check the address")
    return f"ETag: {entry.etag}"


def prefix_version(uri: str) -> str:
    """A digest over names, sizes and ETags of all objects below a prefix; UserError where there are none."""
    digest, count = hashlib.sha256(), 0
    for entry in open_source(uri).list():
        digest.update(f"{entry.name}\0{entry.size}\0{entry.etag}\0".encode())
        count += 1
    if not count:
        raise UserError(f"data={uri} holds no objects; check the address")
    return f"listing:{digest.hexdigest()}"


def s3_members(store: Store, read: bool) -> Iterator[Member]:
    """Yield the objects of a store by name; with `read`, pictures alone, many being fetched ahead of their turn."""
    entries = store.list()
    if read:
        found = _read_ahead(store, (entry for entry in entries if is_picture(entry.name)))
    else:
        found = (Member(entry.name, entry.size, False, partial(_open, store, entry)) for entry in entries)
    yield from visible(store.uri(), found)


def _read_ahead(store: Store, entries: Iterator[Entry]) -> Iterator[Member]:
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[Member] = deque()
        for entry in entries:
            waiting.append(Member(entry.name, entry.size, False, readers.submit(_open, store, entry).result))
            if len(waiting) > 2 * READERS:
                yield waiting.popleft()
        yield from waiting


def _open(store: Store, entry: Entry) -> IO[bytes]:
    content, etag = store.get_bytes(entry.name, limit=entry.size)
    if etag != entry.etag:
        raise UserError(f"{store.uri(entry.name)} was changed while it was read; run it again")
    return io.BytesIO(content)
