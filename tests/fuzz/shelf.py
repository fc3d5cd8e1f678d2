"""A store in memory, for readers of objects: fast enough for a thousand inputs a second."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from components.shared.core.errors import CorruptDataError
from components.shared.storage.client import MAX_BYTES, Entry
from components.shared.storage.errors import Conflict, NoSuchObject


class Shelf:
    """The calls of storage.Store, over a dictionary from names to bytes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def uri(self, name: str = "") -> str:
        return f"s3://shelf/{name}".rstrip("/")

    def put_file(self, path: Path, name: str, sha256: str = "") -> str:
        self.objects[name] = Path(path).read_bytes()
        return hashlib.sha256(self.objects[name]).hexdigest()

    def get_file(self, name: str, path: Path, sha256: str = "") -> str:
        Path(path).write_bytes(self.get_bytes(name)[0])
        return hashlib.sha256(self.objects[name]).hexdigest()

    def put_bytes(self, content: bytes, name: str, *, if_absent: bool = False, if_match: str = "") -> str:
        if (if_absent and name in self.objects) or (if_match and if_match != self._etag(name)):
            raise Conflict(name)
        self.objects[name] = content
        return self._etag(name)

    def get_bytes(self, name: str, limit: int = MAX_BYTES) -> tuple[bytes, str]:
        if name not in self.objects:
            raise NoSuchObject(f"{name} does not exist")
        if len(self.objects[name]) > limit:
            raise CorruptDataError(f"{name} is too large")
        return self.objects[name], self._etag(name)

    def stat(self, name: str) -> Entry | None:
        content = self.objects.get(name)
        return None if content is None else Entry(name, len(content), self._etag(name), None)

    def exists(self, name: str) -> bool:
        return name in self.objects

    def list(self, under: str = "") -> Iterator[Entry]:
        for name in sorted(self.objects):
            if name.startswith(f"{under}/"):
                yield Entry(name, len(self.objects[name]), self._etag(name), None)

    def remove(self, *names: str) -> None:
        for name in names:
            self.objects.pop(name, None)

    def _etag(self, name: str) -> str:
        return hashlib.sha256(self.objects.get(name, b"")).hexdigest()
