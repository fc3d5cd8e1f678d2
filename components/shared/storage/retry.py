"""HTTP requests that are sent again when they fail by chance: what the S3 client speaks through."""

import random
import re
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as SlowError

from components.shared.core import log
from components.shared.core.errors import TransientError, UserError

ATTEMPTS = 8  # over a minute: a server that is moved to another node is away for that long
CONNECT_SECONDS, READ_SECONDS = 5, 60
MAX_WAIT_SECONDS = 30.0
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
# Failures that S3 servers tell with another status; the first two even with 200, once they have begun to answer.
TRANSIENT_CODE = re.compile(
    rb"<Code>(InternalError|SlowDown|RequestTimeout|OperationAborted|ConditionalRequestConflict"
    rb"|BadDigest|XAmzContentSHA256Mismatch)</Code>"
)


def pause(reason: str, failures: int, asked: float | None = None) -> None:
    """Say why, and wait: twice as long after every failure, with jitter, or the seconds that the server asks for."""
    wait = min(0.25 * 2**failures, MAX_WAIT_SECONDS) * random.uniform(0.5, 1.5)
    wait = wait if asked is None else min(asked, 2 * MAX_WAIT_SECONDS)
    log.info(f"{reason}; trying again in {wait:.1f} s")
    time.sleep(wait)


def reason_of(error: HTTPError) -> str:
    """What befell a request, in words for a line that names the server."""
    if isinstance(error, NewConnectionError | ConnectTimeoutError):
        return "could not be reached"
    return "did not answer in time" if isinstance(error, SlowError) else "broke the connection"


def is_unknown(error: object) -> bool:
    """Whether a failure says that a server's name does not exist; a name service that is away for a moment does not."""
    reason = error.__cause__ if isinstance(error, NameResolutionError) else None
    return isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN


class Transport(PoolManager):
    """urllib3's pool of connections, with patience: a request that failed by chance is sent again.

    UserError where the server is not known or not trusted, TransientError where it is not reached or fails every time.
    """

    def __init__(self, ca_bundle: str, prefix: str, attempts: int) -> None:
        """Trust the authorities in the file `ca_bundle`; `prefix` is that of the variables' names."""
        super().__init__(
            maxsize=64,  # connections kept; more are made and thrown away
            timeout=Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            cert_reqs="CERT_REQUIRED",
            ca_certs=ca_bundle,
        )
        self.prefix, self.attempts = prefix, attempts

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> BaseHTTPResponse:
        """Send a request as often as it needs; a redirection is not followed, for what is signed goes to one host."""
        address = url.partition("?")[0]  # a query may hold a token
        failures = 0
        while True:
            asked = None
            try:
                response = super().urlopen(method, url, redirect=False, **{**options, "retries": False})
                is_read = options.get("preload_content", True)
                if response.status >= 400 and not is_read:  # the client reads the reason without patience
                    response.read(cache_content=True)
                    is_read = True
                if not _may_pass(response, is_read):
                    return response
                reason = f"answered {response.status} {response.reason}"
                after = response.headers.get("Retry-After", "")
                asked = float(after) if after.isdecimal() else None
                response.drain_conn()
            except HTTPError as error:
                self._check(url, error)
                reason = reason_of(error)
            failures += 1
            if failures == self.attempts:
                raise TransientError(f"{_server(url)} {reason} {failures} times; check the address, or try again later")
            pause(f"{method} {address}: it {reason}", failures, asked)

    def _check(self, url: str, error: HTTPError) -> None:
        """Refuse what no repetition mends."""
        if is_unknown(error):
            raise UserError(f"{_server(url)} is not known", "check the address") from None
        cause = error.args[0] if error.args else None
        if isinstance(cause, ssl.SSLCertVerificationError):
            told = f"has a certificate that is not trusted ({cause.verify_message})"
            raise UserError(f"{_server(url)} {told}", f"name its authority in {self.prefix}AWS_CA_BUNDLE") from None
        if isinstance(error, SSLError) and re.search("WRONG_VERSION_NUMBER|RECORD_LAYER", str(error)):
            raise UserError(f"{_server(url)} does not speak TLS", "give http:// in place of https://") from None


def _may_pass(response: BaseHTTPResponse, is_read: bool) -> bool:
    return response.status in TRANSIENT or (is_read and TRANSIENT_CODE.search(response.data) is not None)


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
