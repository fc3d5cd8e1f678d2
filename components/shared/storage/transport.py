"""The HTTP connections of the S3 client: requests that fail by chance are sent again."""

import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, SSLError

from components.shared.core.errors import TransientError, UserError
from components.shared.core.proxy import Fault, Proxy, fault_of, proxy_for, status_fault
from components.shared.storage.errors import ServerFault
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
        self._settings: dict[str, Any] = {
            "maxsize": 64,  # connections to reuse; more are opened if needed, and closed after use
            "timeout": Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            "cert_reqs": "CERT_REQUIRED",
            "ca_certs": ca_bundle,
        }
        super().__init__(**self._settings)
        self.prefix, self.attempts = prefix, attempts
        self._is_tunnel, self._proxied = connection is not None, dict[str, ProxyManager]()
        self._proxies = dict[str, Proxy | None]()  # by server
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
            retry_after, remedy, kind = None, "", TransientError
            try:
                response = self._send(method, url, redirect=False, **{**options, "retries": False})
                is_read = options.get("preload_content", True)
                if response.status >= 400 and not is_read:  # minio would read the reason without retries
                    response.read(cache_content=True)
                    is_read = True
                if not _is_transient(response, is_read):
                    return response
                reason = f"answered {response.status} {response.reason}"
                kind = ServerFault if response.status == 500 else TransientError
                retry_after = _seconds(response.headers.get("Retry-After", ""))
                response.drain_conn()
            except HTTPError as error:
                fault = fault_of(error, url)
                self._raise_if_permanent(url, error, fault)
                reason, remedy = _reason(error, fault)
            retries.failed(reason, retry_after, f"{request}: the server {reason}", remedy, kind)

    def _send(self, method: str, url: str, **options: Any) -> BaseHTTPResponse:
        """Send a request once, by the proxy of its URL if it has one, but never through a tunnel and a proxy."""
        proxy = None if self._is_tunnel else self._proxy_of(url)
        if proxy is None:
            return super().urlopen(method, url, **options)
        response = self._through(proxy).urlopen(method, url, **options)
        if response.status == 407 and (fault := status_fault(407, response.reason or "", url)):
            raise UserError(f"{_server(url)} could not be reached ({fault.reason})", fault.remedy)
        return response

    def _proxy_of(self, url: str) -> Proxy | None:
        server = _server(url)
        if server not in self._proxies:  # which takes as long as half of a small request
            self._proxies[server] = proxy_for(url)
        return self._proxies[server]

    def _through(self, proxy: Proxy) -> ProxyManager:
        found = self._proxied.get(proxy.url)
        if found is None:
            found = ProxyManager(proxy.address, proxy_headers=proxy.headers, **self._settings)
        return self._proxied.setdefault(proxy.url, found)

    def _raise_if_permanent(self, url: str, error: HTTPError, fault: Fault | None) -> None:
        """Raise UserError for a failure that no retry can fix; `fault` is the proxy's, if it is that."""
        server = _server(url)
        if fault and fault.is_lasting:
            raise UserError(f"{server} could not be reached ({fault.reason})", fault.remedy) from None
        if is_unknown_host(error):
            raise UserError(f"{server} is not known", "check the address") from None
        cause = error.args[0] if error.args else None
        if isinstance(cause, ssl.SSLCertVerificationError):
            message = f"{server} has a certificate that is not trusted ({cause.verify_message})"
            remedy = CERTIFICATE_REMEDIES.get(cause.verify_code, f"name its authority in {self.prefix}AWS_CA_BUNDLE")
            raise UserError(message, remedy) from None
        if isinstance(error, SSLError) and re.search("WRONG_VERSION_NUMBER|RECORD_LAYER", str(error)):
            raise UserError(f"{server} does not speak TLS", "use http:// instead of https://") from None


def _reason(error: HTTPError, fault: Fault | None) -> tuple[str, str]:
    """Return why a request failed, as the end of a sentence that begins with the server, and the remedy if known."""
    return (f"could not be reached ({fault.reason})", fault.remedy) if fault else (reason_of(error), "")


def _is_transient(response: BaseHTTPResponse, is_read: bool) -> bool:
    return response.status in TRANSIENT or (is_read and TRANSIENT_CODE.search(response.data) is not None)


def _seconds(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After header; None if there is none, or a date."""
    return float(retry_after) if retry_after.isdecimal() else None


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
