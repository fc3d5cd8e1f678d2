"""Downloads over HTTPS that resume after a cut, and the record of what a URL held."""

import hashlib
import io
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from components.shared.core import log
from components.shared.core.errors import TransientError, UserError
from components.shared.core.files import Document, read_json, sha256_file, write_json
from components.shared.storage.download_cache import cache_folder, cached, place
from components.shared.storage.retry import TRANSIENT, is_unknown, pause

ATTEMPTS = 6  # without a byte gained
CONNECT_SECONDS, READ_SECONDS = 5, 30
BLOCK = 1 << 18
URL_FORMAT = "torch2kubeflow/url"
VALIDATORS = ("ETag", "Last-Modified")


class _Cut(Exception):
    """A failure that may pass: the connection broke, or the server asked to come back later."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Fetched(NamedTuple):
    """A file of a URL in the cache: its path, its SHA-256, and the version as url_version tells it."""

    path: Path
    sha256: str
    version: str


def url_version(url: str) -> str:
    """What tells whether the file behind a URL is still the same: the digest demanded, else ETag, else Last-Modified.

    Where the server tells neither, the file is downloaded into the cache, for its digest. A server out of reach leaves
    the version of the last time. UserError where there is none.
    """
    address, demanded = _parts(url)
    if demanded:
        return f"sha256:{demanded}"
    record = _record(address)
    try:
        version = _version(_transfer(address, io.BytesIO(), only_ask=True).headers)
    except UserError as error:
        if not record:
            raise
        log.info(f"{error}; using the file of {record['date']}")
        return _recorded(record).version
    return version or fetch_url(url).version


def fetch_url(url: str) -> Fetched:
    """Download a URL into the cache.

    A fragment `#sha256=<digest>` demands that digest, and needs no network once the file is in the cache. Without
    it the digest is recorded, the server is asked whether the file is still the same, and a server out of reach
    leaves the file of the last time. UserError where the URL cannot be had or has another digest.
    """
    address, demanded = _parts(url)
    known = cached(demanded) if demanded else None
    if known:
        return Fetched(known, demanded, f"sha256:{demanded}")
    record = {} if demanded else _record(address)
    try:
        fetched = _download(address, demanded, record)
        return fetched._replace(version=f"sha256:{demanded}") if demanded else fetched
    except UserError as error:
        kept = cached(record["sha256"]) if record else None
        if kept is None:
            raise
        log.info(f"{error}; using the file of {record['date']}")
        return _recorded(record)


def _recorded(record: Document) -> Fetched:
    digest = record["sha256"]
    return Fetched(place(digest), digest, _version(record) or f"sha256:{digest}")


def _version(headers: Mapping[str, str]) -> str:
    """What an answer's headers, or the record of them, say of the version; empty where they say nothing."""
    return next((f"{name}: {headers[name]}" for name in VALIDATORS if headers.get(name)), "")


def _download(address: str, demanded: str, record: Document) -> Fetched:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        path = Path(folder) / "file"
        answer = download(address, path, record)
        if answer.status_code == 304:
            return _recorded(record)
        digest = sha256_file(path)
        if demanded and digest != demanded:
            raise UserError(f"{address} has the digest sha256={digest}, not {demanded}; it was changed or damaged")
        document: Document = {
            "format": URL_FORMAT,
            "url": address,
            "sha256": digest,
            "date": time.strftime("%Y-%m-%d"),
            **{name: answer.headers.get(name) for name in VALIDATORS},
        }
        os.replace(path, place(digest))
        write_json(_record_path(address), document)
        return _recorded(document)


def download(address: str, path: Path, record: Document | None = None, limit: int | None = None) -> requests.Response:
    """Download a URL to `path`, resuming after a cut, and return the last answer (status 304: as `record` says).

    Failures that may pass are tried again, with exponential backoff and jitter or as long as the server asks; `limit`
    bounds the bytes. UserError where it cannot be had.
    """
    with open(path, "wb") as file:
        return _transfer(address, file, record, limit)


def _transfer(
    address: str,
    file: BinaryIO,
    record: Document | None = None,
    limit: int | None = None,
    only_ask: bool = False,
) -> requests.Response:
    """Take a URL's bytes, or its headers alone, in as many attempts as that needs."""
    failures, have = 0, 0
    with requests.Session() as session:
        transfer = _Transfer(session, address, file, record or {}, limit, only_ask)
        while True:
            try:
                return transfer.attempt()
            except _Cut as cut:
                gained, have = file.tell() > have, file.tell()
                failures = 1 if gained else failures + 1
                if failures >= ATTEMPTS:
                    raise TransientError(f"{address} cannot be had: {cut}; try again later") from None
                pause(str(cut), failures, cut.wait)


class _Transfer:
    """One download and what it has so far: every attempt goes on where the last one was cut."""

    def __init__(
        self,
        session: requests.Session,
        address: str,
        file: BinaryIO,
        record: Document,
        limit: int | None,
        only_ask: bool,
    ) -> None:
        self.session, self.address, self.file, self.record = session, address, file, record
        self.limit, self.only_ask = limit, only_ask
        self.validator: str | None = None  # ETag or Last-Modified of what we have

    def attempt(self) -> requests.Response:
        """Ask for what is missing and take it; _Cut where it may work the next time."""
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        try:
            with self.session.get(self.address, headers=self._headers(), stream=True, timeout=timeout) as answer:
                self._check(answer)
                if answer.status_code != 304 and not self.only_ask:
                    self._take(answer)
                return answer
        except requests.exceptions.SSLError as error:
            raise UserError(f"{self.address} has no certificate that is trusted here ({error})") from None
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            if any(is_unknown(getattr(cause, "reason", None)) for cause in error.args):
                raise UserError(f"{urlsplit(self.address).hostname} is not known; is there a network?") from None
            raise _Cut(f"the connection to {self.address} failed ({type(error).__name__})") from None
        except UserError:
            raise
        except (requests.RequestException, ValueError) as error:  # ValueError: redirected to no address
            raise UserError(f"{self.address} cannot be had: {error}") from None

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self.file.tell() and self.validator:
            headers |= {"Range": f"bytes={self.file.tell()}-", "If-Range": self.validator}
        elif not self.file.tell():
            known = {"If-None-Match": self.record.get("ETag"), "If-Modified-Since": self.record.get("Last-Modified")}
            headers |= {name: value for name, value in known.items() if value}
        return headers

    def _check(self, answer: requests.Response) -> None:
        for hop in (*answer.history, answer):
            _check_address(hop.url)
        if answer.status_code in TRANSIENT:
            asked = answer.headers.get("Retry-After", "")
            reason = f"{self.address} answered {answer.status_code} {answer.reason}"
            raise _Cut(reason, float(asked) if asked.isdecimal() else None)
        is_rest = _content_range(answer)[0] == self.file.tell()
        if answer.status_code == 416 or (answer.status_code == 206 and not is_rest):
            self._restart()
            raise _Cut(f"{self.address} changed on the way")
        if answer.status_code not in (200, 206, 304) or (answer.status_code == 304 and not self.record):
            raise UserError(f"{self.address} answered {answer.status_code} {answer.reason}; check the address")

    def _take(self, answer: requests.Response) -> None:
        if answer.status_code != 206:
            self._restart()
        etag = answer.headers.get("ETag", "")
        self.validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
        total = _content_range(answer)[1]
        progress = log.Progress(self.address.rsplit("/", 1)[-1] or self.address, total, "bytes")
        progress.done = self.file.tell()
        for block in answer.raw.stream(BLOCK, decode_content=False):  # some servers call a .tar.gz a gzipped .tar
            self.file.write(block)
            progress.advance(len(block))
            if self.limit is not None and self.file.tell() > self.limit:
                raise UserError(f"{self.address} is larger than the {self.limit:,} bytes expected")
        if self.file.tell() < total:
            raise _Cut(f"{self.address} ended after {self.file.tell():,} of {total:,} bytes")
        self.file.flush()

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()


def _content_range(answer: requests.Response) -> tuple[int, int]:
    """Where the answer's bytes start, and the whole file's size; 0 where the server does not tell it."""
    part = re.match(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if part:
        return int(part[1]), int(part[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else 0


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(f"{address} is not https: anyone on the way could change the data; give a https:// address")


def _parts(url: str) -> tuple[str, str]:
    """The address, and the digest that the fragment demands or an empty string; UserError where either is wrong."""
    address, _, fragment = url.partition("#")
    _check_address(address)
    if not fragment:
        return address, ""
    digest = fragment.removeprefix("sha256=").lower()
    if not fragment.startswith("sha256=") or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise UserError(f"{url} has no digest after #; give #sha256= and 64 hexadecimal digits")
    return address, digest


def _record_path(address: str) -> Path:
    return cache_folder() / "urls" / f"{hashlib.sha256(address.encode()).hexdigest()}.json"


def _record(address: str) -> Document:
    """What is known of a URL from the last time; empty where nothing is, or its file is gone."""
    try:
        record = read_json(_record_path(address), URL_FORMAT)
    except UserError:  # a damaged record is as good as none
        return {}
    return record if cached(record["sha256"]) else {}
