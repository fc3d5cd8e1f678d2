"""By which proxy a URL goes: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, alike for data, S3, KFP, Kubernetes and registries.

What is near never goes by a proxy, whatever NO_PROXY says: this machine, Services of the cluster by their names in
`.svc` or `.cluster.local`, and a pod's Kubernetes API.
"""

import base64
import os
import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import inet_aton
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

from urllib3.exceptions import ProxyError

from components.shared.core.errors import UserError

Address = IPv4Address | IPv6Address
SERVICES = (".svc", ".cluster.local")
PORTS = {"http": 80, "https": 443}
OLD_NOTATION = re.compile(r"[0-9][0-9a-fx.]*", re.I)  # of an address, which resolvers still read
REFUSED = re.compile(r"Tunnel connection failed: (\d{3}) ?([^'\")]*)")  # by a proxy that was asked to CONNECT
PASSING = (408, 425, 429)  # answers below 500 after which another attempt may succeed


class Proxy(NamedTuple):
    """A proxy, and the variable that names it."""

    variable: str
    parts: SplitResult

    @property
    def url(self) -> str:
        """Return its address, with user and password if it needs them: not to be shown."""
        return self.parts.geturl()

    @property
    def address(self) -> str:
        """Return its address alone."""
        return self.parts._replace(netloc=self.parts.netloc.rpartition("@")[2], path="").geturl()

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that log in to it."""
        login = f"{unquote(self.parts.username or '')}:{unquote(self.parts.password or '')}"
        basic = base64.b64encode(login.encode()).decode()
        return {"proxy-authorization": f"Basic {basic}"} if login != ":" else {}

    def __str__(self) -> str:
        return f"proxy {self.address} ({self.variable})"


class Fault(NamedTuple):
    """What a proxy has against a request; `is_lasting` if another attempt meets the same."""

    reason: str
    remedy: str
    is_lasting: bool


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy by which a URL goes; None if it goes directly. Raises UserError if its variable is wrong."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or PORTS.get(parts.scheme, 0)
    found = getproxies_environment()
    given = found.get(parts.scheme, "").strip() if parts.scheme in PORTS else ""
    if (
        not given
        or is_near(host)
        or any(_covers(entry, host, port) for entry in re.split(r"[\s,]+", found.get("no", "")))
    ):
        return None
    return _read(parts.scheme, given)


def is_near(host: str) -> bool:
    """Return whether a host is this machine, a Service of the cluster, or the Kubernetes API of this pod."""
    address = literal_address(host)
    if address:
        return address.is_loopback or address.is_unspecified or host == os.environ.get("KUBERNETES_SERVICE_HOST")
    return host == "localhost" or host.endswith((".localhost", *SERVICES))


def literal_address(host: str) -> Address | None:
    """Return the address that a host is written as, also in one number or in hexadecimal; None for a name."""
    with suppress(ValueError):
        address = ip_address(host.strip("[]").partition("%")[0])
        return getattr(address, "ipv4_mapped", None) or address
    with suppress(OSError):
        return IPv4Address(inet_aton(host)) if OLD_NOTATION.fullmatch(host) else None
    return None


def fault_of(error: Exception, url: str) -> Fault | None:
    """Return what the proxy has against a request to `url`; None if the error is not the proxy's."""
    proxy, text = proxy_for(url), str(error)
    if not proxy or not (isinstance(error, ProxyError) or "ProxyError(" in text):
        return None
    if refused := REFUSED.search(text):
        return status_fault(int(refused[1]), refused[2], url)
    if "appears to only use HTTP" in text:
        return Fault(f"{proxy} does not speak TLS", f"write http:// in {proxy.variable}", True)
    if "NameResolutionError" in text:
        return Fault(f"{proxy} is not a known host", _around(proxy, url), True)
    return Fault(f"{proxy} cannot be reached", _around(proxy, url), False)


def status_fault(status: int, reason: str, url: str) -> Fault | None:
    """Return what the proxy has against a request that it answers with this status; None without a proxy."""
    proxy = proxy_for(url)
    if not proxy:
        return None
    if status == 407:
        login = f"http://USER:PASSWORD@{proxy.address.partition('://')[2]}"
        return Fault(f"{proxy} asks for a user and a password (407)", f"set {proxy.variable} to {login}", True)
    what = f"{proxy} does not connect to {urlsplit(url).hostname} ({status}{f' {reason}'.rstrip()})"
    return Fault(what, _around(proxy, url), status < 500 and status not in PASSING)


def _around(proxy: Proxy, url: str) -> str:
    host = urlsplit(url).hostname
    return (
        f"check {proxy.variable} and ask the proxy's owner, or add {host} to NO_PROXY if it is reached without a proxy"
    )


def _covers(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY names a host: a name, which covers those below it, an address or a block."""
    if with_port := re.fullmatch(r"(\[.+\]|[^:]+):(\d+)", entry):
        return int(with_port[2]) == port and _covers(with_port[1], host, port)
    if entry == "*":
        return True
    with suppress(ValueError):
        network, address = ip_network(entry.strip("[]"), strict=False), literal_address(host)
        return address is not None and address in network
    name = entry.lstrip("*").strip(".").lower()
    return bool(name) and f".{host}".endswith(f".{name}")


def _read(scheme: str, given: str) -> Proxy:
    """Return the proxy in the variable for `scheme`. Raises UserError, which shows no password, if it is none."""
    variable = f"{scheme}_proxy" if os.environ.get(f"{scheme}_proxy") else f"{scheme.upper()}_PROXY"
    try:
        parts = urlsplit(given if "://" in given else f"http://{given}")
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UserError(f"{variable} is not an address", "give http://HOST:PORT")
    if parts.scheme not in PORTS:
        raise UserError(f"{variable} names a {parts.scheme} proxy, which is not supported", "give http://HOST:PORT")
    return Proxy(variable, parts)
