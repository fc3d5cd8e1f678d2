"""The bytes that travel: files to upload and objects to download, checked by their SHA-256 on the way."""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

from minio import Minio
from urllib3.exceptions import HTTPError

from components.shared.core import log
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.storage.errors import Unreadable
from components.shared.storage.retry import Retries, reason_of

SHA256 = "x-amz-meta-sha256"  # the header with an object's digest
BLOCK_BYTES = 2**20
PROGRESS_BYTES = 8 * 2**20  # progress is logged for larger objects only


class UploadFile(io.FileIO):
    """A file to upload. Raises UserError at its end, before the object appears, if its SHA-256 is not as expected."""

    def __init__(self, path: str | Path, sha256: str, name: str) -> None:
        """Open the file; `name` is the object's, for the log."""
        super().__init__(path)
        self.size = Path(path).stat().st_size
        self._expected, self._digest = sha256, hashlib.sha256()
        self._advance = _progress(name, self.size)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a block and add it to the digest."""
        block = super().read(size) or b""
        self._digest.update(block)
        self._advance(len(block))
        if (not block or self.tell() >= self.size) and self._digest.hexdigest() != self._expected:
            raise UserError(f"{self.name} is damaged, or was changed during the upload", "create the file again")
        return block


class Part(NamedTuple):
    """Some bytes of an object in a state: from `start` on, `length` of them or as many as there are."""

    start: int
    length: int
    etag: str


class Download:
    """An object that is being downloaded: the size, ETag and SHA-256 from its headers, then its bytes."""

    def __init__(
        self, client: Minio, bucket: str, key: str, uri: str, attempts: int, part: "Part | None" = None
    ) -> None:
        """Send the request, of a part if one is given, and read the headers.

        A stream that breaks is resumed up to `attempts` times in a row.
        """
        self._client, self._bucket, self._key = client, bucket, key
        self._uri, self._attempts = uri, attempts
        self._start, length, etag = part or Part(0, 0, "")
        state: dict[str, str | list[str] | tuple[str]] | None = {"If-Match": f'"{etag}"'} if etag else None
        self._response = client.get_object(bucket, key, self._start, length, request_headers=state)
        headers = self._response.headers
        self.size = int(headers["Content-Length"])
        self.etag = headers.get("ETag", "").strip('"')
        self._sha256 = headers.get(SHA256, "")

    def close(self) -> None:
        """Close the connection."""
        self._response.close()

    def read(self) -> bytes:
        """Return the object's bytes. Raises CorruptDataError if they do not match the stored digest."""
        content = b"".join(self._blocks())
        self._verify_digest(hashlib.sha256(content).hexdigest())
        return content

    def read_part(self) -> bytes:
        """Return the bytes of the part, which have no digest."""
        return b"".join(self._blocks())

    def write(self, file: BinaryIO, sha256: str) -> str:
        """Write the object to a file and return its SHA-256; each block is hashed while it is being written.

        Raises CorruptDataError if the digest is neither `sha256`, if given, nor the stored one.
        """
        advance, digest = _progress(self._key, self.size), hashlib.sha256()
        with ThreadPoolExecutor(1) as hasher:
            hashed = hasher.submit(digest.update, b"")
            for block in self._blocks():
                hashed.result()
                hashed = hasher.submit(digest.update, block)
                file.write(block)
                advance(len(block))
        self._verify_digest(digest.hexdigest(), sha256)
        return digest.hexdigest()

    def _blocks(self) -> Iterator[bytes]:
        """Yield the object in blocks. A broken stream is resumed if the object has not changed since."""
        retries = Retries(self._uri, "try again later", self._attempts)
        received, response = 0, self._response
        while True:
            try:
                with response:
                    for block in response.stream(BLOCK_BYTES, decode_content=False):
                        received += len(block)
                        retries.reset()
                        yield block
                break
            except HTTPError as error:
                details = f"{self._uri}: the server {reason_of(error)} after {received:,} bytes"
                retries.failed("was cut", details=details, kind=Unreadable)
            response = self._client.get_object(
                self._bucket,
                self._key,
                offset=self._start + received,
                length=self.size - received,
                request_headers={"If-Match": self._response.headers["ETag"]},
            )
        if received != self.size:
            raise TransientError(f"{self._uri} came with {received:,} bytes, not {self.size:,}", "try again")

    def _verify_digest(self, found: str, expected: str = "") -> None:
        for digest in (expected, self._sha256):
            if digest and found != digest:
                message = f"{self._uri} is damaged: its SHA-256 is {found}, not {digest}"
                raise CorruptDataError(message, "upload it again")


def _progress(name: str, size: int) -> Callable[[int], None]:
    """Return a function that counts the bytes of a transfer, and logs those of a large one."""
    if size <= PROGRESS_BYTES:
        return lambda _: None
    return log.Progress(name.rpartition("/")[2], size, "bytes").advance
