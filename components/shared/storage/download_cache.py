"""A local cache of downloaded files, each stored under the SHA-256 of its content."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import NO_SPACE, UserError
from components.shared.core.files import sha256_file

DIGEST = re.compile("[0-9a-f]{64}")
UNFINISHED = "download-"  # begins the names of folders in the cache


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/torch2kubeflow` (default `~/.cache`), and create it if needed.

    Raises UserError if it cannot be created, for example in a pod without a home directory.
    """
    remedy = "set XDG_CACHE_HOME to a writable folder"
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch2kubeflow"
    except RuntimeError:
        raise UserError("HOME is not set, and the user has no entry that names a home directory", remedy) from None
    try:
        (folder / "sha256").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        message = f"{folder} cannot be created ({error.strerror})"
        raise UserError(message, remedy) from None
    return folder


@contextmanager
def download_folder() -> Iterator[Path]:
    """Yield a folder in the cache for a file that is not whole yet; those that killed processes left are removed."""
    cache = cache_folder()
    with ExitStack() as stack:
        with locked(cache):  # so that no other process sees a new folder before that is locked
            for left in cache.glob(f"{UNFINISHED}*"):
                with suppress(FileNotFoundError), locked(left, fcntl.LOCK_NB) as is_left:
                    if is_left:
                        shutil.rmtree(left, ignore_errors=True)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=cache)))
            stack.enter_context(locked(folder))
        yield folder


@contextmanager
def locked(folder: Path, how: int = 0) -> Iterator[bool]:
    """Lock a folder for as long as the process lives, and yield whether that was possible: NFS has no such locks."""
    descriptor, is_locked = os.open(folder, os.O_RDONLY), False
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | how)
            is_locked = True
        yield is_locked
    finally:
        os.close(descriptor)


def cache_path(sha256: str) -> Path:
    """Return the path for the file with this digest, whether or not it exists.

    Raises ValueError if it is no SHA-256: the path would lead elsewhere.
    """
    if not DIGEST.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no SHA-256")
    return cache_folder() / "sha256" / sha256


def cached(sha256: str) -> Path | None:
    """Return the cached file with this digest, or None. A damaged file is deleted, which is logged."""
    path = cache_path(sha256)
    if not path.is_file():
        return None
    if sha256_file(path) != sha256:
        log.info(f"{path} is damaged and was deleted")
        path.unlink(missing_ok=True)
        return None
    return path
