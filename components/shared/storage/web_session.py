"""Sessions of `requests` that go by the proxy of each URL, and without one connect to an address that was checked."""

import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from components.shared.core.proxy import Address, Fault, fault_of, literal_address, proxy_for, status_fault

# Raises UserError if a host must not be reached at an address.
Check = Callable[[str, Address], None]


class ProxyFailed(requests.ConnectionError):
    """The proxy of a URL could not be reached, or did not open a way to it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def open_session(check: Check | None = None) -> requests.Session:
    """Return a session of which every request, also after a redirect, goes by the proxy of its own URL.

    Each address is given to `check` before it is connected to. Behind a proxy, which looks up names itself, those
    alone are checked that a URL has in place of a name.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(check))
    return session


class _Adapter(HTTPAdapter):
    def __init__(self, check: Check | None) -> None:
        self._check = check
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*arguments, **options)
        if self._check:
            self.poolmanager.pool_classes_by_scheme = _pools(self._check)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request by the proxy of its URL, whatever the session found in the environment.

        Raises ProxyFailed if the proxy is why there is no answer.
        """
        url = str(request.url)
        proxy, host = proxy_for(url), urlsplit(url).hostname or ""
        address = literal_address(host)
        if proxy and address and self._check:
            self._check(host, address)
        request.headers.pop("Proxy-Authorization", None)  # which a redirect got, also to a host without a proxy
        proxies = {urlsplit(url).scheme: proxy.url} if proxy else {}
        try:
            response = super().send(request, *arguments, **{**options, "proxies": proxies})
        except requests.RequestException as error:
            if fault := fault_of(error, url):
                raise ProxyFailed(fault) from None
            raise
        if response.status_code == 407 and (fault := status_fault(407, response.reason, url)):
            raise ProxyFailed(fault)
        return response


def _pools(check: Check) -> Mapping[str, type[HTTPConnectionPool]]:
    """Return the pools, by scheme, of connections whose addresses are checked."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, super()._new_conn, check)

    class Tls(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, super()._new_conn, check)

    return {
        "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": Plain}),
        "https": type("TlsPool", (HTTPSConnectionPool,), {"ConnectionCls": Tls}),
    }


def _connect(connection: HTTPConnection, connect: Callable[[], socket.socket], check: Check) -> socket.socket:
    """Look a name up once, check what was found, and connect to that: a second look-up may find something else."""
    name, failure = connection._dns_host, None
    addresses = _look_up(connection)
    for address in addresses:
        check(connection.host, address)
    for address in addresses:
        connection._dns_host = str(address)
        try:
            return connect()
        except (NewConnectionError, ConnectTimeoutError) as error:
            failure = error
        finally:
            connection._dns_host = name
    raise failure or NewConnectionError(connection, "no address")


def _look_up(connection: HTTPConnection) -> list[Address]:
    host = connection._dns_host.strip("[]")
    try:
        found = socket.getaddrinfo(host, connection.port, allowed_gai_family(), socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    addresses = [literal_address(str(entry[4][0])) for entry in found]
    return [address for address in addresses if address]
