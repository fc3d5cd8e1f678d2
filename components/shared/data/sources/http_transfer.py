"""Downloads over HTTPS that resume after a cut."""

import io
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.proxy import Address, literal_address
from components.shared.storage.retry import TRANSIENT, Retries, is_unknown_host
from components.shared.storage.web_session import ProxyFailed, open_session

ATTEMPTS = 6  # that gain no byte
CONNECT_SECONDS, READ_SECONDS = 5, 30
BLOCK = 1 << 18


class _Retry(Exception):
    """A transient failure: the connection broke, or the server asked to come back later."""

    def __init__(self, reason: str, wait: float | None = None, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.wait, self.remedy = reason, wait, remedy


def download(
    address: str, path: Path, known: Mapping[str, str] | None = None, limit: int | None = None
) -> requests.Response:
    """Download a URL to `path`, resuming after a cut, and return the last response.

    `known` are the validators of an earlier download: status 304 means that the file is still the same. Transient
    failures are retried, with exponential backoff and jitter or after the time that the server asks for; `limit`
    bounds the bytes. Raises UserError if the download fails.
    """
    with open(path, "wb") as file:
        return _transfer(address, file, known, limit)


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
    retries, received = Retries(address, "try again later", ATTEMPTS), 0
    with open_session(partial(check_reached, address)) as session:
        transfer = _Transfer(session, address, file, known or {}, limit, only_headers)
        while True:
            try:
                return transfer.attempt()
            except _Retry as retry:
                if file.tell() > received:
                    retries.reset()
                received = file.tell()
                retries.failed(retry.reason, retry.wait, remedy=retry.remedy)


class _Transfer:
    """One download and its progress: every attempt continues where the last one was cut."""

    def __init__(
        self,
        session: requests.Session,
        address: str,
        file: BinaryIO,
        known: Mapping[str, str],
        limit: int | None,
        only_headers: bool,
    ) -> None:
        self.session, self.address, self.file, self.known = session, address, file, known
        self.limit, self.only_headers = limit, only_headers
        self.validator: str | None = None  # ETag or Last-Modified of the bytes so far

    def attempt(self) -> requests.Response:
        """Request the missing bytes and write them. Raises _Retry if the next attempt may succeed."""
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        try:
            with self.session.get(self.address, headers=self._headers(), stream=True, timeout=timeout) as response:
                self._check(response)
                if response.status_code != 304 and not self.only_headers:
                    self._write(response)
                return response
        except ProxyFailed as error:
            if error.fault.is_lasting:
                raise UserError(f"{self.address} cannot be reached: {error}", error.fault.remedy) from None
            raise _Retry(f"could not be read ({error})", remedy=error.fault.remedy) from None
        except requests.exceptions.SSLError as error:
            untrusted = f"{self.address} has a certificate that is not trusted ({error})"
            raise UserError(untrusted, "name the file of its authority in REQUESTS_CA_BUNDLE") from None
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            if any(is_unknown_host(getattr(cause, "reason", None)) for cause in error.args):
                unknown = f"{urlsplit(self.address).hostname} is not a known host"
                raise UserError(unknown, "check the address and the network") from None
            raise _Retry(f"could not be read ({type(error).__name__})") from None
        except UserError:
            raise
        except (requests.RequestException, ValueError) as error:  # ValueError: redirected to an invalid address
            raise UserError(f"{self.address} could not be downloaded: {error}", "check the address") from None

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self.file.tell() and self.validator:
            headers |= {"Range": f"bytes={self.file.tell()}-", "If-Range": self.validator}
        elif not self.file.tell():
            unless = {"If-None-Match": self.known.get("ETag"), "If-Modified-Since": self.known.get("Last-Modified")}
            headers |= {name: value for name, value in unless.items() if value}
        return headers

    def _check(self, response: requests.Response) -> None:
        for hop in (*response.history, response):
            check_address(hop.url)
        if response.status_code in TRANSIENT:
            asked = response.headers.get("Retry-After", "")
            reason = f"answered {response.status_code} {response.reason}"
            raise _Retry(reason, float(asked) if asked.isdecimal() else None)
        is_rest = _content_range(response)[0] == self.file.tell()
        if response.status_code == 416 or (response.status_code == 206 and not is_rest):
            self._restart()
            raise _Retry("changed during the download")
        if response.status_code not in (200, 206, 304) or (response.status_code == 304 and not self.known):
            remedy = "make it readable without a login" if response.status_code in (401, 403) else "check the address"
            raise UserError(f"{self.address} answered {response.status_code} {response.reason}", remedy)

    def _write(self, response: requests.Response) -> None:
        if response.status_code != 206:
            self._restart()
        etag = response.headers.get("ETag", "")
        self.validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        total = _content_range(response)[1]
        progress = log.Progress(self.address.rsplit("/", 1)[-1] or self.address, total, "bytes")
        progress.done = self.file.tell()
        for block in response.raw.stream(BLOCK, decode_content=False):  # some servers call a .tar.gz a gzipped .tar
            self.file.write(block)
            progress.advance(len(block))
            if self.limit is not None and self.file.tell() > self.limit:
                too_large = f"{self.address} is larger than the {self.limit:,} bytes expected"
                raise UserError(too_large, "check that the file is the expected one")
        if self.file.tell() < total:
            raise _Retry(f"ended after {self.file.tell():,} of {total:,} bytes")
        self.file.flush()

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()


def _content_range(response: requests.Response) -> tuple[int, int]:
    """Return where the response's bytes start, and the size of the whole file or 0 if the server does not send it."""
    part = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if part:
        return int(part[1]), int(part[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else 0


def check_address(address: str) -> None:
    """Raise UserError if the address is not https://, except on the loopback interface."""
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(
            f"{address} is not https: anyone on the network could change the data", "give a https:// address"
        )


def check_reached(typed: str, host: str, address: Address) -> None:
    """Raise UserError if a host on the way from the address that the user typed must not be reached at `address`.

    This machine is reached only if the user typed it; link-local addresses, where clouds keep credentials, never are.
    """
    own = literal_address(urlsplit(typed).hostname or "")
    is_own = urlsplit(typed).hostname == "localhost" or (own is not None and own.is_loopback)
    if address.is_link_local or ((address.is_loopback or address.is_unspecified) and not is_own):
        what = "of a local link" if address.is_link_local else "of this machine"
        at = "" if literal_address(host) else f", at {address}"
        raise UserError(f"{typed} leads to {host}{at}, an address {what}", "give the address of a data set")
