"""Downloads over HTTPS that resume after a cut."""

import io
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from components.shared.core import log
from components.shared.core.errors import UserError, disk_named
from components.shared.data.archives.kinds import PAGE_BYTES, first_bytes, refuse_page
from components.shared.data.sources.redirects import Way
from components.shared.storage.retry import TRANSIENT, Retries, is_unknown_host
from components.shared.storage.web_session import ProxyFailed, open_session

ATTEMPTS = 6  # that gain no byte
TIMEOUT = (5, 30)  # seconds to connect, and to wait for bytes
BLOCK = 1 << 18
SLOW_SECONDS, SLOW_BYTES = 120, 120 * 2**10  # a KiB a second: a GiB would take twelve days
SPACE_STEP = 2**26  # bytes between looks at the space that is left


class Retry(Exception):
    """A transient failure: the connection broke, or the server asked to come back later."""

    def __init__(self, reason: str, wait: float | None = None, remedy: str = "", is_slow: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.remedy, self.is_slow = reason, wait, remedy, is_slow


def download(
    address: str, path: Path, known: Mapping[str, str] | None = None, limit: int | None = None
) -> requests.Response:
    """Download a URL to `path`, resuming after a cut, and return the last response.

    `known` are the validators of an earlier download: status 304 means that the file is still the same. Transient
    failures are retried, with exponential backoff and jitter or after the time that the server asks for; `limit`
    bounds the bytes. Raises UserError if the download fails, or brings a web page.
    """
    with disk_named(path.parent), open(path, "wb") as file:
        response = _transfer(address, file, known, limit)
    refuse_page(first_bytes(path), address)
    return response


def request_headers(address: str) -> Mapping[str, str]:
    """Return the response headers of a URL without its content. Raises UserError if the request fails."""
    return _transfer(address, io.BytesIO(), only_headers=True).headers


def _transfer(
    address: str,
    file: BinaryIO,
    known: Mapping[str, str] | None = None,
    limit: int | None = None,
    only_headers: bool = False,
) -> requests.Response:
    """Read a URL's bytes, or only its headers, in as many attempts as necessary."""
    way = Way(address)
    with open_session(way.check) as session:
        return Transfer(session, way, address, file, known or {}, limit, only_headers).run()


class Transfer:
    """One download and its progress: every attempt continues where the last one was cut."""

    def __init__(
        self,
        session: requests.Session,
        way: Way,
        address: str,
        file: BinaryIO,
        known: Mapping[str, str],
        limit: int | None,
        only_headers: bool,
    ) -> None:
        self.session, self.way, self.address, self.file, self.known = session, way, address, file, known
        self.limit, self.only_headers = limit, only_headers
        self.validator: str | None = None  # ETag or Last-Modified of the bytes so far

    def run(self) -> requests.Response:
        """Read the bytes in as many attempts as necessary."""
        retries, received = Retries(self.address, "try again later", ATTEMPTS), 0
        while True:
            try:
                return self.attempt()
            except Retry as retry:
                if self.file.tell() > received and not retry.is_slow:
                    retries.reset()
                received = self.file.tell()
                retries.failed(retry.reason, retry.wait, remedy=retry.remedy)

    def attempt(self) -> requests.Response:
        """Request the missing bytes and write them. Raises Retry if the next attempt may succeed."""
        with faults_named(self.address), self.way.follow(self.session, self._headers(), TIMEOUT) as response:
            self._check(response)
            if self.only_headers and "html" in response.headers.get("Content-Type", ""):
                refuse_page(_start(response), self.address)
            elif response.status_code != 304 and not self.only_headers:
                self._write(response)
            return response

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self.file.tell() and self.validator:
            headers |= {"Range": f"bytes={self.file.tell()}-", "If-Range": self.validator}
        elif not self.file.tell():
            unless = {"If-None-Match": self.known.get("ETag"), "If-Modified-Since": self.known.get("Last-Modified")}
            headers |= {name: value for name, value in unless.items() if value}
        return headers

    def _check(self, response: requests.Response) -> None:
        retry_transient(response)
        is_rest = content_range(response)[0] == self.file.tell()
        if response.status_code == 416 or (response.status_code == 206 and not is_rest):
            self._restart()
            raise Retry("changed during the download")
        if response.status_code not in (200, 206, 304) or (response.status_code == 304 and not self.known):
            raise refused(self.address, response)

    def _write(self, response: requests.Response) -> None:
        if response.status_code != 206:
            self._restart()
        etag = response.headers.get("ETag", "")
        self.validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        total = content_range(response)[1]
        name = urlsplit(self.address).path.rpartition("/")[2]
        progress = log.Progress(name or self.address, total, "bytes")
        progress.done = self.file.tell()
        space = _Space(self.file, total - self.file.tell(), self.address)
        for block in blocks(response):
            self.file.write(block)
            progress.advance(len(block))
            space.check()
            if self.limit is not None and self.file.tell() > self.limit:
                too_large = f"{self.address} is larger than the {self.limit:,} bytes expected"
                raise UserError(too_large, "check that the file is the expected one")
        if self.file.tell() < total:
            raise Retry(f"ended after {self.file.tell():,} of {total:,} bytes")
        self.file.flush()

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()


def retry_transient(response: requests.Response) -> None:
    """Raise Retry if the server may answer another time."""
    if response.status_code in TRANSIENT:
        asked = response.headers.get("Retry-After", "")
        reason = f"answered {response.status_code} {response.reason}"
        raise Retry(reason, float(asked) if asked.isdecimal() else None)


def refused(address: str, response: requests.Response) -> UserError:
    """Return the error of an answer that is none."""
    remedy = "make it readable without a login" if response.status_code in (401, 403) else "check the address"
    return UserError(f"{address} answered {response.status_code} {response.reason}", remedy)


@contextmanager
def faults_named(address: str) -> Iterator[None]:
    """Raise Retry or UserError for what a request in the block raises."""
    try:
        yield
    except ProxyFailed as error:
        if error.fault.is_lasting:
            raise UserError(f"{address} cannot be reached: {error}", error.fault.remedy) from None
        raise Retry(f"could not be read ({error})", remedy=error.fault.remedy) from None
    except requests.exceptions.SSLError as error:
        untrusted = f"{address} has a certificate that is not trusted ({_reason(error)})"
        raise UserError(untrusted, "name the file of its authority in REQUESTS_CA_BUNDLE") from None
    except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
        if any(is_unknown_host(getattr(cause, "reason", None)) for cause in error.args):
            unknown = f"{urlsplit(address).hostname} is not a known host"
            raise UserError(unknown, "check the address and the network") from None
        raise Retry(f"could not be read ({type(error).__name__})") from None
    except UserError:
        raise
    except (requests.RequestException, ValueError) as error:  # ValueError: redirected to an invalid address
        raise UserError(f"{address} could not be downloaded: {_reason(error)}", "check the address") from None


def blocks(response: requests.Response) -> Iterator[bytes]:
    """Yield the bytes as they come and as they are sent: some servers call a .tar.gz a gzipped .tar.

    Raises Retry if they come at less than a least rate.
    """
    since, received = time.monotonic(), 0
    while block := response.raw.read1(BLOCK, decode_content=False):
        yield block
        received += len(block)
        if time.monotonic() - since > SLOW_SECONDS:
            if received < SLOW_BYTES:
                raise Retry(f"sent {received:,} bytes in {SLOW_SECONDS:g} s", is_slow=True)
            since, received = time.monotonic(), 0


def _start(response: requests.Response) -> bytes:
    """Return the start of a body, in which a web page has its title. Raises Retry as `_blocks` does."""
    start = b""
    for block in blocks(response):
        start += block
        if len(start) >= PAGE_BYTES:
            break
    return start


class _Space:
    """The space on the disk of a download, of which `needed` bytes are announced."""

    def __init__(self, file: BinaryIO, needed: int, address: str) -> None:
        """Raise UserError if what is announced does not fit."""
        self._file, self._address, self._checked = file, address, file.tell()
        self._folder = str(Path(file.name).parent)
        self._require(needed, f"{address} has {needed:,} bytes to come")

    def check(self) -> None:
        """Raise UserError if a body whose size need not be as announced is about to fill the disk."""
        if self._file.tell() - self._checked >= SPACE_STEP:
            self._checked = self._file.tell()
            self._require(SPACE_STEP, f"{self._address} has sent {self._checked:,} bytes and goes on")

    def _require(self, needed: int, reason: str) -> None:
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(f"{reason}, and {self._folder} has {free:,} bytes free", "free some space there")


def _reason(error: Exception) -> str:
    """Return what an error says, without the query that it may show of an address, which need not be the typed one."""
    return re.sub(r"(url: [^\s?]*)\?\S*", r"\1?...", str(error))


def content_range(response: requests.Response) -> tuple[int, int]:
    """Return where the response's bytes start, and the size of the whole file or 0 if the server does not send it."""
    part = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if part:
        return int(part[1]), int(part[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else 0
