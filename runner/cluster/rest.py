"""The HTTP client below `kfp.Client`: time limits, retries of reads, and every failure as an error of one line."""

import json
import logging
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
from kfp_server_api.rest import RESTClientObject
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ProtocolError

from components.shared.core.errors import UserError
from components.shared.core.proxy import fault_of, proxy_for, status_fault
from runner.cluster import gateway
from runner.cluster.options import read_cookie
from runner.cluster.token import expired_since

SECONDS = (10, 60)  # to connect, and between two bytes of an answer
ASK = "ask for the right, or name your own --namespace"
BUSY = (429, 500, 502, 503, 504)
# Waits of 0, 0.4, 0.8 and 1.6 s, or what the server asks for.
RETRIES = urllib3.Retry(
    total=4,
    other=0,
    redirect=False,  # KFP never redirects, and what it leads to would be taken for KFP's answer
    backoff_factor=0.2,
    backoff_jitter=0.2,
    allowed_methods=["GET"],
    status_forcelist=BUSY,
    raise_on_status=False,
)
# What KFP with many users answers: about a token, by Kubernetes' review of it, and about rights.
AUDIENCES = re.compile(r'token audiences \["(.*?)"\] is invalid for the target audiences \["(.*?)"\]')
DENIED = re.compile(r"User '(.*?)' is not authorized .*?Namespace:(.*?),Verb:(.*?),Group:(.*?),.*?Resource:(.*?),")


class ApiError(UserError):
    """A request that failed, with the HTTP `status` of the answer; 0 if the server could not be reached."""

    def __init__(self, status: int, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.status = status

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status == 0 or self.status in BUSY


class NotKfp(ApiError):
    """An answer that is neither KFP's nor a login's: KFP may be at another address."""


class Rest(RESTClientObject):  # type: ignore[misc]
    """The REST client of `kfp_server_api` with retries and one-line errors; `connection` replaces that for http."""

    def __init__(
        self,
        configuration: Any,
        cookie: str | None = None,
        connection: type[HTTPConnection] | None = None,
        cookie_file: Path | None = None,
    ) -> None:
        configuration.retries = RETRIES
        proxy = None if connection else proxy_for(configuration.host)
        if proxy:
            configuration.proxy, configuration.proxy_headers = proxy.address, proxy.headers
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # else it logs every retry
        super().__init__(configuration)
        self.tokens = configuration.api_key  # updated if a token is read from a file
        self.cookie, self._cookie_file = cookie, cookie_file
        if connection:
            pool = type("Pool", (HTTPConnectionPool,), {"ConnectionCls": connection})
            self.pool_manager.pool_classes_by_scheme = {"http": pool}

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Return the response. Raises ApiError, without a token in it, for every other outcome."""
        options["_request_timeout"] = options.get("_request_timeout") or SECONDS
        if self._cookie_file:  # a new one, perhaps
            self.cookie = read_cookie(self._cookie_file)
            options["headers"] = {**options.get("headers", {}), "Cookie": self.cookie}
        try:
            response = super().request(method, url, **options)
        except kfp_server_api.ApiException as error:
            if not error.status:  # how the client reports a failed handshake
                raise ApiError(0, *_unreachable(url, error.reason)) from None
            raise self._refusal(method, url, error) from None
        except HTTPError as error:
            raise ApiError(0, *_unreachable(url, getattr(error, "reason", None) or error)) from None
        if options.get("_preload_content", True) and "json" not in response.getheader("content-type", ""):
            raise self._not_kfp(url, response.status, _text(response.data))
        return response

    def is_kfp(self, address: str, headers: dict[str, str]) -> bool:
        """Return whether KFP's API answers at an address, to a single request."""
        text = self._read(f"{address}{gateway.API}v2beta1/healthz", headers, "application/json")
        return text is not None and "multi_user" in text

    def read_text(self, url: str, headers: dict[str, str]) -> str | None:
        """Return the text at `url`, from a single request; None if there is none."""
        return self._read(url, headers, "text/plain")

    def _read(self, url: str, headers: dict[str, str], kind: str) -> str | None:
        try:
            response = self.pool_manager.request("GET", url, headers=headers, timeout=SECONDS[1], retries=False)
        except HTTPError:
            return None
        is_text = response.status == 200 and response.headers.get("content-type", "").startswith(kind)
        return response.data.decode(errors="replace") if is_text else None

    @property
    def _sent(self) -> str:
        """What logs in, for messages; empty if there is nothing."""
        return "the token" if self.tokens.get("authorization") else "the cookie" if self.cookie else ""

    def _not_kfp(self, url: str, status: int, body: str, location: str = "") -> ApiError:
        """Return the error for an answer that is not KFP's: a login's, Istio's, or another server's."""
        if location:
            found = gateway.redirect(url, status, location, self._sent)
            return ApiError(status, *found) if found else NotKfp(status, *gateway.elsewhere(url, status, location))
        # Many servers answer in plain words if they read HTTP at their TLS port.
        if "HTTPS" in body and "<" not in body:
            return ApiError(status, *_speaks_tls(_server(url)))
        found = gateway.istio(url, status, body, self._sent) or gateway.page(url, body, self._sent)
        return ApiError(status, *found) if found else NotKfp(status, *gateway.other_page(url, status, body))

    def _refusal(self, method: str, url: str, error: kfp_server_api.ApiException) -> ApiError:
        server, request = _server(url), f"{method} {urlsplit(url).path}"
        answer, body = self._message(error), _text(error.body)
        if error.status == 407 and (fault := status_fault(407, str(error.reason), url)):
            refused = f"{server} cannot be reached: {fault.reason}", fault.remedy
        elif error.status == 401:
            why, remedy = self._unauthenticated(body)
            refused = gateway.istio(url, 401, body, self._sent) or (
                f"{server} refuses the credentials (401): {why}",
                remedy,
            )
        elif answer is None:
            return self._not_kfp(url, error.status, body, (error.headers or {}).get("location", ""))
        elif error.status == 403:
            refused = f"{server} forbids {_denied(body) or f'{request} (403): {answer}'}", ASK
        elif error.status in BUSY:
            refused = f"{server} answers {error.status} to {request}: {answer}", "see the log of deployment ml-pipeline"
        else:
            refused = f"{server} refuses {request} ({error.status}): {answer}", ""
        return ApiError(error.status, *refused)

    def _unauthenticated(self, body: str) -> tuple[str, str]:
        """Return why credentials are refused, as far as the token and the answer say it, and the remedy."""
        since, audiences = expired_since(self.tokens.get("authorization") or ""), AUDIENCES.search(_unescaped(body))
        if since:
            return f"the token expired {since} ago", "give a new token with --token-file"
        if audiences:
            command = f"kubectl create token default-editor -n NAMESPACE --audience {audiences[2]}"
            return (
                f"the token is for {audiences[1]}, not for {audiences[2]}",
                f"{command}, and give it with --token-file",
            )
        if not self._sent:
            return "none were given", gateway.CREDENTIALS
        return (
            "they are wrong or expired",
            "give a new token with --token-file, or a cookie with --cookie-file",
        )

    def _message(self, error: kfp_server_api.ApiException) -> str | None:
        """Return the server's message of an error; None if the answer is not one of KFP's API."""
        try:
            document = json.loads(error.body)
            message = str(document.get("message") or document.get("error_message") or document.get("error") or "")
        except (ValueError, AttributeError, TypeError):
            if error.status not in BUSY:
                return None
            message = _text(error.body).strip()
            return message if 0 < len(message) <= 100 and "<" not in message else str(error.reason)
        for secret in filter(None, [*self.tokens.values(), self.cookie]):
            message = message.replace(secret, "...")
        return message[:300] or str(error.reason)


def _text(body: bytes | str | None) -> str:
    return body.decode(errors="replace") if isinstance(body, bytes) else body or ""


def _unescaped(body: str) -> str:
    """Return the text of a JSON document with its quotes as they were."""
    return body.replace("\\", "")


def _denied(body: str) -> str:
    """Return what a user may not do, by the answer of KFP's check of rights; empty if it says something else."""
    found = DENIED.search(_unescaped(body))
    return f"{found[1]} to {found[3]} {found[5]}.{found[4]} in namespace {found[2]} (403)" if found else ""


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _speaks_tls(server: str) -> tuple[str, str]:
    return f"{server} speaks TLS", "write https://"


def _unreachable(url: str, reason: Any) -> tuple[str, str]:
    """Return why a server does not answer, and the remedy."""
    server, text = _server(url), str(reason)
    if fault := fault_of(reason, url):
        return f"{server} cannot be reached: {fault.reason}", fault.remedy
    if isinstance(reason, NameResolutionError):
        return f"{server}: no machine has that name", "check --host, and whether a VPN is needed"
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        return f"{server} has a certificate that is not trusted", "give its authority with --ca FILE"
    if isinstance(reason, ssl.SSLError | urllib3.exceptions.SSLError) or "SSL" in text:
        return f"{server} does not speak TLS", "write http:// if that is meant"
    if isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(reason, NewConnectionError):
        return f"{server} does not answer in time", "check --host, firewalls and the pod ml-pipeline"
    if server.startswith("http:") and isinstance(reason, ProtocolError) and _does_tls_handshake(url):
        return _speaks_tls(server)
    if isinstance(reason, ProtocolError):
        return f"{server} cuts the connection before an answer is complete", "try again, and see the pod ml-pipeline"
    why = text.rpartition(": ")[2]
    return f"{server} cannot be reached ({why})", "check --host, or leave it out to use a port-forward"


def _does_tls_handshake(url: str) -> bool:
    parts = urlsplit(url)
    try:
        ssl.get_server_certificate((str(parts.hostname), parts.port or 80), timeout=SECONDS[0])
    except (OSError, ValueError):
        return False
    return True
