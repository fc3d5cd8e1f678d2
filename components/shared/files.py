"""Files and folders that appear whole or not at all, and the JSON documents inside them."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from components.shared.errors import UserError

Document = dict[str, Any]


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yield a folder to fill; it takes the name `path` when the block ends well and vanishes when it does not.

    Whatever stood at `path` is removed first: a retried step starts afresh.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    for old in (target, partial):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def new_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary file to write; it takes the name `path` when the block ends well and vanishes when it does not."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, document: Document) -> None:
    """Write a JSON document whole; NaN and infinity are refused (ValueError)."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    with new_file(path) as file:
        file.write(text.encode() + b"\n")


def read_json(path: str | Path, document_format: str) -> Document:
    """Read a JSON document whose field `format` is `document_format`; UserError where it is missing or another's."""
    try:
        document = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the folder is incomplete or no {document_format}; make it again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON document ({error}); make it again") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != document_format:
        raise UserError(f"{path} has the format {found!r}, not {document_format!r}")
    assert isinstance(document, dict)
    return document


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """The SHA-256 of a value's canonical JSON (sorted keys, no spaces), as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
