"""A file at an address that is not downloaded: read in parts or, where its server sends none, from start to end."""

import io
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

import requests

from components.shared.core.errors import TransientError, UserError
from components.shared.data.sources.http_transfer import (
    ATTEMPTS,
    TIMEOUT,
    Retry,
    Transfer,
    blocks,
    content_range,
    faults_named,
    refused,
    retry_transient,
)
from components.shared.data.sources.redirects import Way
from components.shared.storage.retry import Retries
from components.shared.storage.web_session import open_session


class Parts:
    """The file at an address whose server sends parts of it. Threads may share it."""

    def __init__(self, address: str) -> None:
        """Take the address, without a request."""
        self._address = address
        self._idle: SimpleQueue[tuple[requests.Session, Way]] = SimpleQueue()

    def probe(self) -> requests.Response:
        """Return the response to a request of the first byte, of status 206 if the server sends parts."""
        return self._request(0, 1, None)[0]

    def fetch(self, state: str, start: int, length: int) -> bytes:
        """Return bytes from `start` on, `length` of them or as many as there are.

        Raises TransientError if the file has another ETag, or time if it has none, than `state`.
        """
        response, content = self._request(start, length, state)
        if response.status_code not in (206, 416):
            raise UserError(f"{self._address} came whole, not in parts as before", "run it again")
        return content

    def _request(self, start: int, length: int, state: str | None) -> tuple[requests.Response, bytes]:
        session, way = self._session()
        file = io.BytesIO()
        response = _PartTransfer(session, way, self._address, file, (start, length), state).run()
        self._idle.put((session, way))
        return response, file.getvalue()

    def _session(self) -> tuple[requests.Session, Way]:
        try:
            return self._idle.get_nowait()
        except Empty:
            way = Way(self._address)
            return open_session(way.check), way


class WholeStream(io.RawIOBase):
    """The file at an address, byte for byte; after a cut it is asked for again, and passed over as far as it was read.

    Raises TransientError if it is no longer in the state that `state_of` returned.
    """

    def __init__(self, address: str, state: str, size: int) -> None:
        """Take the address, without a request."""
        self._address, self._state, self._size = address, state, size
        self._retries = Retries(address, "try again later", ATTEMPTS)
        self._blocks: Iterator[bytes] | None = None
        self._rest, self._at = memoryview(b""), 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read some bytes, none only at the end."""
        if not self._rest:
            self._rest = memoryview(self._next())
        piece = self._rest[: len(buffer)]
        buffer[: len(piece)] = piece
        self._rest = self._rest[len(piece) :]
        return len(piece)

    def _next(self) -> bytes:
        while True:
            try:
                with faults_named(self._address):
                    self._blocks = self._blocks or self._opened()
                    block = next(self._blocks, b"")
                if not block and self._at < self._size:
                    raise Retry(f"ended after {self._at:,} of {self._size:,} bytes")
            except Retry as retry:
                self._blocks = None
                self._retries.failed(retry.reason, retry.wait, remedy=retry.remedy)
                continue
            self._at += len(block)
            return block

    def _opened(self) -> Iterator[bytes]:
        """Yield the bytes from the present place on."""
        way, passed = Way(self._address), 0
        with (
            open_session(way.check) as session,
            way.follow(session, {"Accept-Encoding": "identity"}, TIMEOUT) as response,
        ):
            retry_transient(response)
            if response.status_code != 200:
                raise refused(self._address, response)
            if state_of(response.headers) != self._state:
                raise TransientError(f"{self._address} changed while it was read", "run it again")
            start = self._at
            for block in blocks(response):
                if passed + len(block) > start:
                    self._retries.reset()
                    yield block[max(0, start - passed) :]
                passed += len(block)


def state_of(headers: Mapping[str, str]) -> str:
    """Return the header that tells versions of a file apart: its ETag, else its Last-Modified, else nothing."""
    return headers.get("ETag") or headers.get("Last-Modified") or ""


def size_of(response: requests.Response) -> int:
    """Return the size of the whole file of which a response has a part; 0 if the server does not send it."""
    return content_range(response)[1]


class _PartTransfer(Transfer):
    """The transfer of a part: of a file in a state, or of one that is in any."""

    def __init__(
        self,
        session: requests.Session,
        way: Way,
        address: str,
        file: BinaryIO,
        part: tuple[int, int],
        state: str | None,
    ) -> None:
        super().__init__(session, way, address, file, {}, None, False)
        self._start, self._length = part
        self._state = state

    def _headers(self) -> dict[str, str]:
        first, last = self._start + self.file.tell(), self._start + self._length - 1
        return {"Accept-Encoding": "identity", "Range": f"bytes={first}-{last}"}

    def _check(self, response: requests.Response) -> None:
        retry_transient(response)
        if response.status_code not in (200, 206, 416):
            raise refused(self.address, response)
        if self._state is not None and state_of(response.headers) != self._state:  # also if it ends before the part
            raise TransientError(f"{self.address} changed while it was read", "run it again")

    def _write(self, response: requests.Response) -> None:
        if response.status_code != 206:
            return
        at, _ = content_range(response)
        if at != self._start + self.file.tell():
            raise UserError(f"{self.address} sent bytes from {at:,} on, which were not asked for", "run it again")
        due = int(response.headers.get("Content-Length") or self._length - self.file.tell())
        for block in blocks(response):
            self.file.write(block)
            due -= len(block)
            if self.file.tell() > self._length:
                raise UserError(f"{self.address} sent more bytes than were asked for", "run it again")
        if due > 0:
            raise Retry(f"ended {due:,} bytes before the end of a part")
