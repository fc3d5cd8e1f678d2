"""The HTTP connections of the S3 client: requests that fail by chance are sent again."""

import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, SSLError

from components.shared.core.errors import UserError
from components.shared.storage.retry import TRANSIENT, Retries, is_unknown_host, reason_of

CONNECT_SECONDS, READ_SECONDS = 5, 60
# Failures that S3 servers report with another status; the first two even with 200, if they had begun to answer.
TRANSIENT_CODE = re.compile(
    rb"<Code>(InternalError|SlowDown|RequestTimeout|OperationAborted|ConditionalRequestConflict"
    rb"|BadDigest|XAmzContentSHA256Mismatch)</Code>"
)
CERTIFICATE_REMEDIES = {  # by the verify code of OpenSSL (x509_vfy.h)
    9: "set this machine's clock",
    10: "renew the server's certificate, or set this machine's clock",
    62: "use a host name that the certificate holds",
    64: "use an address that the certificate holds",
}


class Transport(PoolManager):
    """A urllib3 pool that retries requests which failed by chance.

    Raises UserError if the server is unknown or not trusted, TransientError if it fails at every attempt.
    """

    def __init__(
        self, ca_bundle: str, prefix: str, attempts: int, connection: type[HTTPConnection] | None = None
    ) -> None:
        """Trust the authorities in the file `ca_bundle`; `prefix` is that of the environment variables' names.

        If `connection` is given, it replaces urllib3's for HTTP or, if it is one for HTTPS, for that.
        """
        super().__init__(
            maxsize=64,  # connections to reuse; more are opened if needed, and closed after use
            timeout=Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            cert_reqs="CERT_REQUIRED",
            ca_certs=ca_bundle,
        )
        self.prefix, self.attempts = prefix, attempts
        if connection:
            base = HTTPSConnectionPool if issubclass(connection, HTTPSConnection) else HTTPConnectionPool
            self.pool_classes_by_scheme = {base.scheme: type("Pool", (base,), {"ConnectionCls": connection})}

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> BaseHTTPResponse:
        """Send a request until it succeeds. Redirects are not followed: a signature is valid for one host."""
        request = f"{method} {url.partition('?')[0]}"  # a query may hold a token
        retries = Retries(_server(url), "check the address, or try again later", self.attempts)
        while True:
            retry_after = None
            try:
                response = super().urlopen(method, url, redirect=False, **{**options, "retries": False})
                is_read = options.get("preload_content", True)
                if response.status >= 400 and not is_read:  # minio would read the reason without retries
                    response.read(cache_content=True)
                    is_read = True
                if not _is_transient(response, is_read):
                    return response
                reason = f"answered {response.status} {response.reason}"
                retry_after = _seconds(response.headers.get("Retry-After", ""))
                response.drain_conn()
            except HTTPError as error:
                self._raise_if_permanent(url, error)
                reason = reason_of(error)
            retries.failed(reason, retry_after, f"{request}: the server {reason}")

    def _raise_if_permanent(self, url: str, error: HTTPError) -> None:
        """Raise UserError for a failure that no retry can fix."""
        server = _server(url)
        if is_unknown_host(error):
            raise UserError(f"{server} is not known", "check the address") from None
        cause = error.args[0] if error.args else None
        if isinstance(cause, ssl.SSLCertVerificationError):
            message = f"{server} has a certificate that is not trusted ({cause.verify_message})"
            remedy = CERTIFICATE_REMEDIES.get(cause.verify_code, f"name its authority in {self.prefix}AWS_CA_BUNDLE")
            raise UserError(message, remedy) from None
        if isinstance(error, SSLError) and re.search("WRONG_VERSION_NUMBER|RECORD_LAYER", str(error)):
            raise UserError(f"{server} does not speak TLS", "use http:// instead of https://") from None


def _is_transient(response: BaseHTTPResponse, is_read: bool) -> bool:
    return response.status in TRANSIENT or (is_read and TRANSIENT_CODE.search(response.data) is not None)


def _seconds(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After header; None if there is none, or a date."""
    return float(retry_after) if retry_after.isdecimal() else None


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
