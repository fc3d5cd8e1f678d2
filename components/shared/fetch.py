"""Downloads over HTTPS that resume after a cut, and the record of what a URL held."""

import hashlib
import os
import random
import re
import tempfile
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError, NameResolutionError

from components.shared.cache import cache_folder, cached, place
from components.shared.errors import UserError
from components.shared.files import Document, read_json, sha256_file, write_json
from components.shared.progress import Progress, say

STEP = "download"
ATTEMPTS = 4  # without a byte gained
CONNECT_SECONDS, READ_SECONDS = 5, 30
MAX_WAIT_SECONDS = 30.0
BLOCK = 1 << 18
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
URL_FORMAT = "torch2kubeflow/url"


class _Cut(Exception):
    """A failure that may pass: the connection broke, or the server asked to come back later."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def fetch_url(url: str) -> tuple[Path, str]:
    """Download a URL into the cache: the file's path and its SHA-256.

    A fragment `#sha256=<digest>` demands that digest, and needs no network once the file is in the cache. Without
    it the digest is recorded, the server is asked whether the file is still the same, and a server out of reach
    leaves the file of the last time. UserError where the URL cannot be had or has another digest.
    """
    address, _, fragment = url.partition("#")
    _check_address(address)
    demanded = _demanded(url, fragment)
    known = cached(demanded) if demanded else None
    if known:
        return known, demanded
    record = {} if demanded else _record(address)
    try:
        return _download(address, demanded, record)
    except UserError as error:
        kept = cached(record["sha256"]) if record else None
        if kept is None:
            raise
        say(STEP, f"{error}; using the file of {record['date']}")
        return kept, record["sha256"]


def _download(address: str, demanded: str, record: Document) -> tuple[Path, str]:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        path = Path(folder) / "file"
        answer = download(address, path, record)
        if answer.status_code == 304:
            return place(record["sha256"]), record["sha256"]
        digest = sha256_file(path)
        if demanded and digest != demanded:
            raise UserError(f"{address} has the digest sha256={digest}, not {demanded}; it was changed or damaged")
        document: Document = {"format": URL_FORMAT, "url": address, "sha256": digest, "date": time.strftime("%Y-%m-%d")}
        for header in ("ETag", "Last-Modified"):
            document[header] = answer.headers.get(header)
        os.replace(path, place(digest))
        write_json(_record_path(address), document)
        return place(digest), digest


def download(address: str, path: Path, record: Document | None = None, limit: int | None = None) -> requests.Response:
    """Download a URL to `path`, resuming after a cut, and return the last answer (status 304: as `record` says).

    Failures that may pass are tried again, with exponential backoff and jitter or as long as the server asks; `limit`
    bounds the bytes. UserError where it cannot be had.
    """
    failures, have = 0, 0
    with open(path, "wb") as file, requests.Session() as session:
        transfer = _Transfer(session, address, file, record or {}, limit)
        while True:
            try:
                return transfer.attempt()
            except _Cut as cut:
                gained, have = file.tell() > have, file.tell()
                failures = 1 if gained else failures + 1
                if failures >= ATTEMPTS:
                    raise UserError(f"{address} cannot be had: {cut}; try again later") from None
                wait = min(0.5 * 2**failures, MAX_WAIT_SECONDS) * random.uniform(0.5, 1.5)
                wait = wait if cut.wait is None else min(cut.wait, 2 * MAX_WAIT_SECONDS)
                say(STEP, f"{cut}; trying again in {wait:.1f} s")
                time.sleep(wait)


class _Transfer:
    """One download and what it has so far: every attempt goes on where the last one was cut."""

    def __init__(
        self, session: requests.Session, address: str, file: BinaryIO, record: Document, limit: int | None
    ) -> None:
        self.session, self.address, self.file, self.record, self.limit = session, address, file, record, limit
        self.validator: str | None = None  # ETag or Last-Modified of what we have

    def attempt(self) -> requests.Response:
        """Ask for what is missing and take it; _Cut where it may work the next time."""
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        try:
            with self.session.get(self.address, headers=self._headers(), stream=True, timeout=timeout) as answer:
                self._check(answer)
                if answer.status_code != 304:
                    self._take(answer)
                return answer
        except requests.exceptions.SSLError as error:
            raise UserError(f"{self.address} has no certificate that is trusted here ({error})") from None
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            if any(isinstance(getattr(cause, "reason", None), NameResolutionError) for cause in error.args):
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
        progress = Progress(STEP, self.address.rsplit("/", 1)[-1] or self.address, total, "bytes")
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


def _demanded(url: str, fragment: str) -> str:
    """The digest that the fragment demands, or an empty string."""
    if not fragment:
        return ""
    digest = fragment.removeprefix("sha256=").lower()
    if not fragment.startswith("sha256=") or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise UserError(f"{url} has no digest after #; give #sha256= and 64 hexadecimal digits")
    return digest


def _record_path(address: str) -> Path:
    return cache_folder() / "urls" / f"{hashlib.sha256(address.encode()).hexdigest()}.json"


def _record(address: str) -> Document:
    """What is known of a URL from the last time; empty where nothing is, or its file is gone."""
    try:
        record = read_json(_record_path(address), URL_FORMAT)
    except UserError:  # a damaged record is as good as none
        return {}
    return record if cached(record["sha256"]) else {}
