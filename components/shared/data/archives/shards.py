"""Few large tar files of many pictures, as raw data holds them."""

import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

SHARD_BYTES = 256 * 2**20


class PictureShards:
    """Pictures written to few tar files: the same bytes for the same pictures, whatever their times and owners."""

    def __init__(self, folder: Path, prefix: str, done: Callable[[Path], None] = lambda _: None) -> None:
        """Write to files such as PREFIX-00000.tar in the folder; `done` is called with each that is complete."""
        self._done = done
        self._folder, self._prefix = folder, prefix
        self._opened = ExitStack()
        self._written = SHARD_BYTES
        self.names: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()
        if self.names and error is None:
            self._done(self._folder / self.names[-1])

    def add(self, name: str, size: int, content: IO[bytes] | None) -> None:
        """Write a picture of `size` bytes, or a folder, which has no content."""
        if self._written >= SHARD_BYTES:
            self._opened.close()
            if self.names:
                self._done(self._folder / self.names[-1])
            self.names.append(f"{self._prefix}-{len(self.names):05}.tar")
            path = self._folder / self.names[-1]
            shard = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed with the stack
            self._shard = self._opened.enter_context(shard)
            self._written = 0
        info = tarfile.TarInfo(name)
        info.size = size
        if content is None:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        self._shard.addfile(info, content)
        self._shard.members = []  # type: ignore[attr-defined]  # otherwise every header stays in memory
        self._written += size
