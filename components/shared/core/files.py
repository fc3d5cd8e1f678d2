"""Files and folders that appear whole or not at all, and the JSON documents inside them."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from components.shared.core.errors import UserError

Document = dict[str, Any]
MAX_JSON_BYTES = 2**24  # which lists within lists turn into 0.8 GiB of memory
LARGER_JSON_BYTES = {"torch2kubeflow/evaluation": 2**28}  # by format: a confusion matrix of 5,000 classes


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
    content = json_bytes(document)
    with new_file(path) as file:
        file.write(content)


def json_bytes(document: Document) -> bytes:
    """A JSON document as it stands in a file; NaN and infinity are refused (ValueError)."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_json(path: str | Path, document_format: str) -> Document:
    """Read a JSON document whose field `format` is `document_format`; UserError where it is missing or another's."""
    try:
        with open(path, "rb") as file:
            content = file.read(_limit(document_format) + 1)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the folder is incomplete or no {document_format}; make it again") from None
    return parse_json(content, document_format, str(path))


def parse_json(content: bytes, document_format: str, name: str) -> Document:
    """The JSON document in the bytes of `name`, of that field `format`; UserError where it is none or another's."""
    try:
        limit = _limit(document_format)
        if len(content) > limit:
            raise ValueError(f"more than {limit:,} bytes")
        document = json.loads(content, parse_float=_finite, parse_constant=_finite)
        if b"\\u" in content:
            json.dumps(document, ensure_ascii=False).encode()  # refuses half a surrogate pair, which no file can hold
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is no JSON document ({error}); make it again") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != document_format:
        raise UserError(f"{name} has the format {found!r}, not {document_format!r}")
    assert isinstance(document, dict)
    return document


def _limit(document_format: str) -> int:
    return LARGER_JSON_BYTES.get(document_format, MAX_JSON_BYTES)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """The SHA-256 of a value's canonical JSON (sorted keys, no spaces), as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_without(document: Document, field: str) -> str:
    """The SHA-256 of a document but for the field that holds it, or is none of its content."""
    return sha256_json({name: value for name, value in document.items() if name != field})
