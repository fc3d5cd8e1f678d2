"""The files of a dataset's shards, in a folder or in a store, opened only if they match their digest.

Shards in a store are read through a cache, which processes may share: the folder `shards` next to the downloads of
components/shared/storage/download_cache.py. The least recently used are removed, so that the cache holds no more than
TORCH2KUBEFLOW_SHARD_CACHE_MIB, or more while shards are open or mapped: removing these would free no space. Of that
size a process may have a part for itself, see shard_room.py.

A file that is open or mapped has a shared lock; on a file system without locks (NFS) no file counts as open.
"""

import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from uuid import uuid4

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.data.shard_room import Room, reserved
from components.shared.storage.download_cache import cache_folder, locked

CACHE_VARIABLE = "TORCH2KUBEFLOW_SHARD_CACHE_MIB"
CACHE_MIB = 5120
OWN = re.compile(r"[0-9a-f]{64}(\..+)?")  # names that it gives: of whole files and of incomplete downloads
ABANDONED_SECONDS = 3600  # after its last byte, an incomplete download counts as abandoned
REMEDY = "prepare the dataset again, by running it with another handover_mib"  # else the damaged one is reused


def open_shard(path: Path, sha256: str, size: int) -> FileIO | None:
    """Open a file for reading; return None if it is missing or differs in SHA-256 or size in bytes."""
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
    """The shards at s3://bucket/prefix, each an object `<sha256>.npy`, read through the cache."""

    def __init__(self, uri: str) -> None:
        """Open store and cache. Raises UserError if the address, a variable of the environment or a folder is wrong."""
        from components.shared.storage.client import open_store  # takes 0.1 s, which a dataset on disk does not need

        self._store = open_store(uri, os.environ)
        self.cache_bytes = _cache_bytes()
        self._folder, self._locks = cache_folder() / "shards", cache_folder() / "shard-locks"
        for folder in (self._folder, self._locks):
            folder.mkdir(exist_ok=True)

    def open(self, sha256: str, size: int) -> FileIO:
        """Open the shard of that SHA-256 and size in bytes. Raises CorruptDataError if it is missing or damaged."""
        file = self._open_cached(sha256, size)
        if not file:
            lock = self._locks / sha256[:2]
            lock.mkdir(exist_ok=True)
            with locked(lock):  # so that one of several processes fetches it
                file = self._open_cached(sha256, size) or self._fetch_to_cache(sha256, size)
        os.utime(file.fileno())  # marks it as just used
        return file

    def fetch(self, sha256: str, size: int, path: Path) -> FileIO:
        """Download a shard past the cache, to a file, and open it as `open` does.

        It is not synced, which takes longer than the download: what the cache keeps is checked whenever it is opened.
        """
        from components.shared.storage.errors import NoSuchObject

        name = f"{sha256}.npy"
        try:
            self._store.get_file(name, path, sha256, is_synced=False)
        except NoSuchObject as error:
            raise CorruptDataError(f"{self._store.uri(name)} cannot be used ({error})", REMEDY) from None
        except CorruptDataError as error:
            raise self._damaged(name, str(error)) from None
        file = FileIO(path)
        found = os.fstat(file.fileno()).st_size
        if found != size:
            file.close()
            path.unlink()
            raise self._damaged(name, f"it has {found:,} bytes, not {size:,}")
        return file

    def free_bytes(self, besides: Collection[str] = ()) -> int:
        """Return the bytes of the cache that are neither reserved nor in use; shards in `besides` count as unused."""
        return self.cache_bytes - reserved(self._folder) - self._used_bytes(besides)

    def reserve(self, size: int, besides: Collection[str] = ()) -> Room:
        """Give this process a part of the cache for itself; shards in `besides` count as unused.

        Raises NoRoom if there is not so much.
        """
        room = Room(self._folder, size, self.cache_bytes - self._used_bytes(besides))
        self._free_space(0)
        return room

    def _open_cached(self, sha256: str, size: int) -> FileIO | None:
        file = open_shard(self._folder / sha256, sha256, size)
        if file:
            _mark_as_used(file)
            if not os.fstat(file.fileno()).st_nlink:  # another process removed it before
                file.close()
                return None
        return file

    def _fetch_to_cache(self, sha256: str, size: int) -> FileIO:
        self._free_space(size)
        fetched = self._folder / f"{sha256}.{uuid4().hex}"
        file = self.fetch(sha256, size, fetched)
        _mark_as_used(file)
        os.replace(fetched, self._folder / sha256)
        return file

    def _damaged(self, name: str, reason: str) -> CorruptDataError:
        # A store that has it with its digest and size is not read again when the dataset is reused.
        return CorruptDataError(f"{self._store.uri(name)} cannot be used ({reason})", f"delete it, and {REMEDY}")

    def _free_space(self, size: int) -> None:
        """Remove the least recently used files until `size` more bytes fit, and those that a killed process left."""
        files = list(self._files())
        held = size + sum(file_size for _, file_size, _ in files) + reserved(self._folder)
        with locked(self._folder):
            for used, file_size, path in sorted(files):
                is_whole = not path.suffix
                is_needless = held > self.cache_bytes if is_whole else used < time.time() - ABANDONED_SECONDS
                if is_needless and _is_unused(path, remove=True):
                    held -= file_size

    def _used_bytes(self, besides: Collection[str] = ()) -> int:
        """Return the bytes of the shards that processes have open or mapped."""
        with locked(self._folder):  # lest another process that looks counts as a user
            files = [(size, path) for _, size, path in self._files() if path.name not in besides]
            return sum(size for size, path in files if not _is_unused(path))

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yield the time of the last use, the size and the path of each file that the cache has given a name."""
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                found = path.lstat()
                if OWN.fullmatch(path.name) and stat.S_ISREG(found.st_mode):
                    yield found.st_mtime, found.st_size, path


def _mark_as_used(file: FileIO) -> None:
    """Lock a file until it is closed and no longer mapped."""
    with suppress(OSError):  # of a file system without locks
        fcntl.flock(file, fcntl.LOCK_SH)


def _is_unused(path: Path, *, remove: bool = False) -> bool:
    """Return whether no process has a file open or mapped; if so, `remove` it before one opens it."""
    with suppress(FileNotFoundError), FileIO(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # of a file system without locks
            pass
        if remove:
            path.unlink()
    return True


def _cache_bytes() -> int:
    value = os.environ.get(CACHE_VARIABLE) or str(CACHE_MIB)
    if not (value.isascii() and value.isdecimal()):
        raise UserError(f"{CACHE_VARIABLE}={value} is not a size", "give a whole number of MiB")
    return int(value) * 2**20
