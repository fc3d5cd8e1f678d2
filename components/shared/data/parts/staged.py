"""Archives of which no part can be read alone, repacked as plain tars in the store, once for all who read them.

sources/<key>/<sha256>.tar    some of the members, in their order
sources/<key>/source.json     which tars there are, in their order; written last

The key is a digest of where the archive is, of its state, and of the name of a table with labels that would not be
whole otherwise. Of a file that no list needs only the start is there.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

from components.shared.core import log
from components.shared.core.document import Count, Document, Fingerprint, Items
from components.shared.core.errors import CorruptDataError, UserError, raise_as_corrupt
from components.shared.core.files import sha256_file, sha256_json
from components.shared.data.archives.member import Member
from components.shared.data.archives.nested import is_nested_archive
from components.shared.data.archives.ranged import RangedFile, StreamedFile
from components.shared.data.archives.shards import PictureShards
from components.shared.data.layout.file_kinds import PICTURE, START_BYTES, kind_by_name, kind_by_start
from components.shared.data.prepared_index import SOURCES
from components.shared.data.raw import MAX_PICTURE_BYTES
from components.shared.data.samples.webdataset import MAX_LABEL_BYTES
from components.shared.data.sources.archive import members
from components.shared.storage.client import Store, open_store
from components.shared.storage.errors import NoSuchObject

INDEX = "source.json"


class StagedDocument(Document):
    """`source.json`: the tars that have the members of an archive."""

    FORMAT = "torch2kubeflow/source"
    REMEDY = "run it again"

    members: Count
    tars: Items[Fingerprint]


def staged(file: RangedFile | StreamedFile, store: str, labels: str = "") -> Iterator[RangedFile]:
    """Yield plain tars in the store with the members of an archive, which is read unless they are there whole.

    `labels` names the table with labels, if any. Raises UserError if the archive cannot be read safely, or the store
    cannot be used.
    """
    place = _Place(open_store(store, os.environ), file, labels)
    for tar in place.find() or place.pack():
        yield place.opened(tar)


def stored_file(store: Store, name: str, etag: str, size: int) -> RangedFile:
    """Return an object of the store that can be read in parts; its key is its whole address."""
    uri = store.uri(name)
    return RangedFile(uri, uri, etag, size, partial(store.get_range, name, etag))


class _Place:
    """Where the tars of an archive are in the store."""

    def __init__(self, store: Store, file: RangedFile | StreamedFile, labels: str) -> None:
        self._store, self._file = store, file
        kind = kind_by_name(labels)
        is_whole = not labels or (kind and kind.reason == "sidecar")
        self._table = "" if is_whole else _base(labels)  # in the key only if needed, lest an archive is there twice
        state = [str(file), file.etag, file.start, file.size, *filter(None, [self._table])]
        self._folder = f"{SOURCES}/{sha256_json([StagedDocument.FORMAT, *state])}"
        self._tars: list[Fingerprint] = []

    def opened(self, tar: Fingerprint) -> RangedFile:
        name = self._name(tar)
        entry = self._store.stat(name)
        if not entry:
            raise UserError(f"{self._store.uri(name)} has gone while it was needed", "run it again")
        return stored_file(self._store, name, entry.etag, tar.bytes)

    def find(self) -> list[Fingerprint]:
        """Return the tars if all are there; else none."""
        name = f"{self._folder}/{INDEX}"
        try:
            with raise_as_corrupt():
                tars = StagedDocument.parse(self._store.get_bytes(name)[0], self._store.uri(name)).tars
        except (NoSuchObject, CorruptDataError):
            return []
        return tars if all(self._is_there(tar) for tar in tars) else []

    def pack(self) -> list[Fingerprint]:
        """Read the archive once, and store its tars, but those that are there."""
        log.info(f"{self._file} is read once, into plain tars in {self._store.uri(self._folder)}")
        count, progress = 0, log.Progress(f"repack {self._file.name}", 0, "files")
        with TemporaryDirectory() as folder, PictureShards(Path(folder), "part", self._put) as shards:
            for member in members(self._file):
                if member.is_folder:
                    shards.add(member.name, 0, None)
                else:
                    self._add(shards, member)
                count += 1
                progress.advance(1)
        document = StagedDocument(members=count, tars=self._tars)
        self._store.put_bytes(document.to_json(), f"{self._folder}/{INDEX}")
        return self._tars

    def _add(self, shards: PictureShards, member: Member) -> None:
        with member.open() as content:
            start = content.read(START_BYTES)
            size = member.size if _base(member.name) == self._table else _kept(member, start)
            if size > MAX_PICTURE_BYTES and _kind(member, start) == PICTURE:
                most = f"{member.size:,} bytes, more than {MAX_PICTURE_BYTES:,}"
                raise UserError(f"{self._file} holds {member.name} of {most}", "shrink it")
            shards.add(member.name, size, cast(IO[bytes], _Joined(start, content)))

    def _put(self, path: Path) -> None:
        tar = Fingerprint(sha256=sha256_file(path), bytes=path.stat().st_size)
        if not self._is_there(tar):
            self._store.put_file(path, self._name(tar), tar.sha256)
        path.unlink()
        self._tars.append(tar)

    def _is_there(self, tar: Fingerprint) -> bool:
        entry = self._store.stat(self._name(tar))
        return entry is not None and entry.size == tar.bytes

    def _name(self, tar: Fingerprint) -> str:
        return f"{self._folder}/{tar.sha256}.tar"


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _kind(member: Member, start: bytes) -> Any:
    return kind_by_name(member.name) or kind_by_start(member.name, start)


def _kept(member: Member, start: bytes) -> int:
    """Return how many bytes of a file are needed to list the source as if it were there whole."""
    reason = _kind(member, start).reason
    if reason in (None, "sidecar") or is_nested_archive(member):
        return member.size
    return min(member.size, START_BYTES if reason in ("junk", "unreadable") else MAX_LABEL_BYTES + 1)


class _Joined:
    """The start of a file, which was read, and the rest."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start, self._rest = start, rest

    def read(self, size: int) -> bytes:
        piece, self._start = self._start[:size], self._start[size:]
        return piece + self._rest.read(size - len(piece)) if len(piece) < size else piece
