"""The HTTP below `kfp.Client`: time limits, retries of what only reads, and every failure told in one line."""

import json
import logging
import ssl
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
from kfp_server_api.rest import RESTClientObject
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ProtocolError

from components.shared.core.errors import UserError

SECONDS = (10, 60)  # to connect, and between two bytes of an answer
BUSY = (429, 500, 502, 503, 504)
# Waits of 0, 0.4, 0.8 and 1.6 s, or what the server asks for.
RETRIES = urllib3.Retry(
    total=4,
    other=0,
    backoff_factor=0.2,
    backoff_jitter=0.2,
    allowed_methods=["GET"],
    status_forcelist=BUSY,
    raise_on_status=False,
)


class ApiError(UserError):
    """What the server refuses, with its HTTP `status`; 0 where it could not be reached."""

    def __init__(self, status: int, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether it may go well a little later."""
        return self.status == 0 or self.status in BUSY


class Rest(RESTClientObject):  # type: ignore[misc]
    """The REST client of `kfp_server_api`, made patient and plain-spoken; `connection` replaces urllib3's for http."""

    def __init__(
        self, configuration: Any, cookie: str | None = None, connection: type[HTTPConnection] | None = None
    ) -> None:
        configuration.retries = RETRIES
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # else it tells of every retry
        super().__init__(configuration)
        self.tokens = configuration.api_key  # filled anew where a token is read from a file
        self.cookie = cookie
        if connection:
            pool = type("Pool", (HTTPConnectionPool,), {"ConnectionCls": connection})
            self.pool_manager.pool_classes_by_scheme = {"http": pool}

    def request(self, method: str, url: str, **options: Any) -> Any:
        """The response; ApiError in place of every other outcome, without a token in it."""
        options["_request_timeout"] = options.get("_request_timeout") or SECONDS
        try:
            response = super().request(method, url, **options)
        except kfp_server_api.ApiException as error:
            if not error.status:  # the client's way to tell of a failed handshake
                raise ApiError(0, _unreachable(url, error.reason)) from None
            raise self._refusal(method, url, error) from None
        except HTTPError as error:
            raise ApiError(0, _unreachable(url, getattr(error, "reason", None) or error)) from None
        if options.get("_preload_content", True) and "json" not in response.getheader("content-type", ""):
            raise ApiError(response.status, _no_api(url))
        return response

    def read_text(self, url: str, headers: dict[str, str]) -> str | None:
        """The text at `url`, asked for once; None where there is none to be had."""
        try:
            response = self.pool_manager.request("GET", url, headers=headers, timeout=SECONDS[1], retries=False)
        except HTTPError:
            return None
        is_text = response.status == 200 and response.headers.get("content-type", "").startswith("text/plain")
        return response.data.decode(errors="replace") if is_text else None

    def _refusal(self, method: str, url: str, error: kfp_server_api.ApiException) -> ApiError:
        place, path = _place(url), urlsplit(url).path
        said = self._message(error)
        if error.status == 401:
            text = (
                f"{place} refuses the credentials (401): they are missing, wrong or expired; "
                "give a fresh token with --token-file, or a cookie with --cookie-file"
            )
        elif said is None:
            # Many servers tell in plain words what has come to their TLS port.
            text = f"{place} speaks TLS; write https://" if "HTTPS" in str(error.body) else _no_api(url)
        elif error.status == 403:
            text = f"{place} forbids {method} {path} (403): {said}; ask for the right, or name your own --namespace"
        elif error.status in BUSY:
            text = f"{place} answers {error.status} to {method} {path}: {said}; see the log of deployment ml-pipeline"
        else:
            text = f"{place} refuses {method} {path} ({error.status}): {said}"
        return ApiError(error.status, text)

    def _message(self, error: kfp_server_api.ApiException) -> str | None:
        """What the server says of an error; None where it does not speak as KFP's API does."""
        try:
            document = json.loads(error.body)
            said = str(document.get("message") or document.get("error_message") or document.get("error") or "")
        except (ValueError, AttributeError, TypeError):
            return str(error.reason) if error.status in BUSY else None
        for secret in filter(None, [*self.tokens.values(), self.cookie]):
            said = said.replace(secret, "...")
        return said[:300] or str(error.reason)


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _no_api(url: str) -> str:
    return (
        f"{url.partition('/apis/')[0]} is not KFP's API, or a login stands before it: it answers with a web page; "
        "check --host (Kubeflow's own ends in /pipeline), and give --token-file or --cookie-file"
    )


def _unreachable(url: str, reason: Any) -> str:
    """Why a server gives no answer, and what to do about it."""
    place, text = _place(url), str(reason)
    if isinstance(reason, NameResolutionError):
        return f"{place}: no machine has that name; check --host, and whether a VPN is needed"
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        return f"{place} shows a certificate that is not trusted; give its authority with --ca FILE"
    if isinstance(reason, ssl.SSLError | urllib3.exceptions.SSLError) or "SSL" in text:
        return f"{place} speaks no TLS; write http:// where that is meant"
    if isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(reason, NewConnectionError):
        return f"{place} gives no answer in time; check --host, firewalls and the pod ml-pipeline"
    if place.startswith("http:") and isinstance(reason, ProtocolError) and _speaks_tls(url):
        return f"{place} speaks TLS; write https://"
    if isinstance(reason, ProtocolError):
        return f"{place} cuts the connection before an answer is complete; try again, and see the pod ml-pipeline"
    return f"{place} cannot be reached ({text.rpartition(': ')[2]}); check --host, or leave it out for a port-forward"


def _speaks_tls(url: str) -> bool:
    parts = urlsplit(url)
    try:
        ssl.get_server_certificate((str(parts.hostname), parts.port or 80), timeout=SECONDS[0])
    except (OSError, ValueError):
        return False
    return True
