"""The files of a dataset's shards, opened only where they hold what their digest says: in a folder, or in the store.

Those of the store come by way of a cache, which processes may share: the folder `shards` beside the downloads of
components/shared/storage/download_cache.py. What was used longest ago is removed, so that no more than
TORCH2KUBEFLOW_SHARD_CACHE_MIB are kept, or one shard if that is larger; a file that is open or mapped stays readable.
"""

import hashlib
import os
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from uuid import uuid4

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.storage.download_cache import cache_folder

BOUND = "TORCH2KUBEFLOW_SHARD_CACHE_MIB"
BOUND_MIB = 4096
ABANDONED_SECONDS = 3600  # since the last byte of a file that is being fetched


def open_shard(path: Path, sha256: str, size: int) -> FileIO | None:
    """Open a file for reading; None where it is not there, or differs in SHA-256 or size in bytes."""
    try:
        if not path.is_file():
            return None
        file = FileIO(path)
    except FileNotFoundError:  # another process removed it just now
        return None
    if os.fstat(file.fileno()).st_size == size and hashlib.file_digest(file, "sha256").hexdigest() == sha256:
        file.seek(0)
        return file
    file.close()
    return None


class StoredShards:
    """The shards at s3://bucket/prefix, each an object `<sha256>.npy`, by way of the cache."""

    def __init__(self, uri: str) -> None:
        """Make no request yet; UserError where the address, the environment's variables or the cache cannot be used."""
        from components.shared.storage.client import open_store  # 0.1 s that a dataset on the disk need not wait for

        self._store = open_store(uri, os.environ)
        self._bound = _bound_bytes()
        self._folder = cache_folder() / "shards"
        self._folder.mkdir(exist_ok=True)

    def open(self, sha256: str, size: int) -> FileIO:
        """Open the shard of that SHA-256 and size in bytes; CorruptDataError where the store does not hold it."""
        file = open_shard(self._folder / sha256, sha256, size)
        if file:
            os.utime(file.fileno())  # its last use
            return file
        self._make_room(size)
        return self._fetch(sha256, size)

    def _fetch(self, sha256: str, size: int) -> FileIO:
        from components.shared.storage.errors import NoSuchObject

        name = f"{sha256}.npy"
        fetched = self._folder / f"{sha256}.{uuid4().hex}"
        try:
            self._store.get_file(name, fetched, sha256)
        except (NoSuchObject, CorruptDataError) as error:
            raise self._damage(name, str(error)) from None
        file = FileIO(fetched)
        os.replace(fetched, self._folder / sha256)
        found = os.fstat(file.fileno()).st_size
        if found != size:
            file.close()
            raise self._damage(name, f"it has {found:,} bytes, not {size:,}")
        return file

    def _damage(self, name: str, reason: str) -> CorruptDataError:
        remedy = "run again with another handover_mib: then preprocess is done again, and mends it"
        return CorruptDataError(f"{self._store.uri(name)} cannot be used ({reason}); {remedy}")

    def _make_room(self, size: int) -> None:
        """Remove what was used longest ago until `size` more bytes are allowed, and what a killed process left."""
        files = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        held = size + sum(file_size for _, file_size, _ in files)
        for used, file_size, path in sorted(files):
            is_whole = not path.suffix
            if held > self._bound if is_whole else used < time.time() - ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
                held -= file_size


def _bound_bytes() -> int:
    value = os.environ.get(BOUND) or str(BOUND_MIB)
    if not (value.isascii() and value.isdecimal()):
        raise UserError(f"{BOUND}={value} is no size; give a whole number of MiB")
    return int(value) * 2**20
