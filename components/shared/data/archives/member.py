"""What a folder, an archive or a bucket holds: a file or a folder."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Member:
    """A file or a folder; `name` is relative, with forward slashes, and `with member.open()` reads the bytes."""

    name: str
    size: int
    is_folder: bool
    open: Callable[[], AbstractContextManager[IO[bytes]]]
