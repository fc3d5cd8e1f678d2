"""Files and folders that appear whole or not at all, and the JSON documents inside them."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from components.shared.core.errors import UserError, disk_named

MAX_DEPTH = 200  # of a JSON document; pydantic writes 255
MAX_JSON_BYTES = 2**24  # nested lists of this size take 0.8 GiB of memory once parsed


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yield a folder to fill, renamed to `path` when the block succeeds and removed when it fails.

    The disk has all of it before the rename, so that a loss of power leaves it whole or not there. Whatever exists at
    `path` is removed first, so that a retried step starts from scratch.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    for old in (target, partial):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with disk_named(target):
            yield partial
            for folder, _, names in os.walk(partial, topdown=False):
                for name in names:
                    _sync(os.path.join(folder, name))
                _sync(folder)
            os.replace(partial, target)
            _sync(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def new_file(path: str | Path, *, is_synced: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file to write, renamed to `path` when the block succeeds and removed when it fails.

    The disk has it before the rename, as in `new_folder`; not so if it need not survive a loss of power (`is_synced`).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with disk_named(target), open(partial, "wb") as file:
            yield file
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        os.replace(partial, target)
        if is_synced:
            _sync(target.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sync(path: str | Path) -> None:
    """Wait until the disk has a file, or the names in a folder; a link is one of these names."""
    if os.path.islink(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # which some file systems answer for folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def private_files() -> Iterator[None]:
    """Let what the block writes, also by processes that it starts, be for nobody but the user."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def write_json(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document atomically. Raises ValueError if it holds NaN or infinity."""
    content = json_bytes(document)
    with new_file(path) as file:
        file.write(content)


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a JSON document's file. Raises ValueError if it holds NaN or infinity."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_json(path: str | Path, document_format: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON document. Raises UserError if it is missing, invalid or its `format` is not `document_format`."""
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: the folder is incomplete or not a {document_format}", "create it again"
        ) from None
    return parse_json(content, document_format, str(path), max_bytes)


def parse_json(content: bytes, document_format: str, name: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Parse the JSON document `name`. Raises UserError if it is invalid or its `format` is not `document_format`."""
    try:
        if len(content) > max_bytes:
            raise ValueError(f"more than {max_bytes:,} bytes")
        document = json.loads(content, parse_float=_finite, parse_constant=_finite)
        check_limits(document, content, max_bytes)
        if b"\\u" in content:
            json.dumps(document, ensure_ascii=False).encode()  # refuses half a surrogate pair, which no file can hold
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not a JSON document ({error})", "create it again") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != document_format:
        raise UserError(f"{name} has the format {found!r}, not {document_format!r}", "check that it is the right file")
    assert isinstance(document, dict)
    return document


def check_limits(document: Any, content: bytes, max_bytes: int) -> None:
    """Raise ValueError if a document, with this content of its file, is too large or nested too deep to be read."""
    if len(content) > max_bytes:
        raise ValueError(f"more than {max_bytes:,} bytes")
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return
    level = [document]
    for _ in range(MAX_DEPTH):
        members = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for found in members for value in found if isinstance(value, dict | list)]
        if not level:
            return
    raise ValueError(f"more than {MAX_DEPTH} levels of lists and objects")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no spaces) as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_without(document: Mapping[str, Any], field: str) -> str:
    """Return the SHA-256 of a document without `field`, for example the field that stores this digest."""
    return sha256_json({name: value for name, value in document.items() if name != field})


def scratch_of(owner: object) -> Path:
    """Return a new folder, which is removed with its owner, whether or not what is in it is read."""
    folder = Path(tempfile.mkdtemp())
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
