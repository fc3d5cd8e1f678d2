"""Data and S3 go by the proxy that the environment names; without one, to the addresses that were checked."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.shared.core.errors import TransientError, UserError
from components.shared.data.sources.http import fetch_url
from components.shared.storage.client import open_store
from components.shared.storage.web_session import open_session
from tests.servers.proxy_server import ProxyServer, speak_tls
from tests.servers.s3_server import BUCKET, S3Server, proxy
from tests.servers.web_server import WebServer, answer, run_web_server

BODY = b"pictures"
DATA = "https://data.example.org/a.zip"
Names = Callable[..., None]


pytestmark = pytest.mark.usefixtures("cache", "waits")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A web server with TLS that is trusted as data.example.org, with a file."""
    with run_web_server() as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(speak_tls(server, tmp_path, "data.example.org", "localhost")))
        server.files["/a.zip"] = BODY
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Set what each look-up of a name finds in turn, the last one for ever."""
    real = socket.getaddrinfo

    def answer_with(name: str, *addresses: str) -> None:
        found = list(addresses)

        def look_up(host: str, port: int, *more: object) -> object:
            return real((found.pop(0) if len(found) > 1 else found[0]) if host == name else host, port, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return answer_with


def test_data_goes_by_the_proxy(proxy_server: ProxyServer, site: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy_server.hosts["data.example.org"] = site.server_port
    monkeypatch.setenv("HTTPS_PROXY", f"http://ada:secret@{proxy_server.address}")
    assert fetch_url(DATA).path.read_bytes() == BODY
    assert proxy_server.asked == ["CONNECT data.example.org:443"]
    assert proxy_server.logins == ["Basic YWRhOnNlY3JldA=="]


def test_a_redirect_goes_by_the_proxy_of_its_own_address(proxy_server: ProxyServer, site: WebServer) -> None:
    proxy_server.hosts |= dict.fromkeys(("data.example.org", "localhost"), site.server_port)
    site.script = [answer(302, Location=f"https://localhost:{site.server_port}/a.zip")]
    with pytest.raises(UserError, match=r"at 127\.0\.0\.1, an address of this machine"):
        fetch_url(DATA)
    assert proxy_server.asked == ["CONNECT data.example.org:443"]


def test_a_redirect_shows_the_login_of_the_proxy_to_no_other(
    proxy_server: ProxyServer, web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://ada:secret@{proxy_server.address}")
    web_server.files["/a.zip"] = BODY
    web_server.script = [answer(302, Location="/a.zip")]
    with open_session() as session:
        assert session.get(f"{web_server.url}/b.zip", timeout=10).content == BODY
    assert [headers.get("Proxy-Authorization") for headers in web_server.asked] == [None, None]


def test_s3_goes_by_the_proxy(proxy_server: ProxyServer, server: S3Server, uri: str, tmp_path: Path) -> None:
    with proxy(server.address) as front:
        certificate = speak_tls(front, tmp_path, "s3.example.org")
        proxy_server.hosts |= {"s3.example.org": front.server_port, "plain.example.org": server.ports["s3.port"]}
        for address in ("https://s3.example.org", "http://plain.example.org:9000"):
            variables = {"AWS_ENDPOINT_URL_S3": address, "AWS_CA_BUNDLE": str(certificate)}
            store = open_store(uri, server.environment | variables)
            store.put_bytes(BODY, "a")
            assert store.get_bytes("a")[0] == BODY
    tunnel, *plain = proxy_server.asked
    assert tunnel == "CONNECT s3.example.org:443"
    start = f"http://plain.example.org:9000/{BUCKET}/{uri.partition(f'{BUCKET}/')[2]}/a"
    assert {request.partition(" ")[0] for request in plain} == {"PUT", "GET"}
    assert all(request.partition(" ")[2] == start for request in plain)


def test_the_embedded_store_never_goes_by_a_proxy(proxy_server: ProxyServer, server: S3Server, uri: str) -> None:
    open_store(uri, server.environment).put_bytes(BODY, "a")
    assert not proxy_server.asked


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (
            407,
            r"proxy http://127\S* \(HTTPS_PROXY\) asks for a user and a password \(407\).*; set HTTPS_PROXY to http://USER",
        ),
        (
            403,
            r"proxy http://127\S* \(HTTPS_PROXY\) does not connect to \w+.example.org \(403 Forbidden\).*; check",
        ),
    ],
)
def test_a_proxy_that_refuses_is_named(
    proxy_server: ProxyServer, server: S3Server, waits: list[float], status: int, line: str
) -> None:
    proxy_server.refusal = status
    with pytest.raises(UserError, match=f"^{DATA} cannot be reached: {line}"):
        fetch_url(DATA)
    variables = server.environment | {"AWS_ENDPOINT_URL_S3": "https://s3.example.org"}
    with pytest.raises(UserError, match=rf"^https://s3.example.org could not be reached \({line}"):
        open_store(f"s3://{BUCKET}/a", variables).check_access()
    assert len(proxy_server.asked) == 2 and not waits
    if status == 407:
        variables["AWS_ENDPOINT_URL_S3"] = "http://s3.example.org"
        with pytest.raises(UserError, match=r"\(HTTP_PROXY\) asks for a user and a password \(407\)"):
            open_store(f"s3://{BUCKET}/a", variables).check_access()


def test_a_proxy_that_is_away_is_asked_again_and_named(
    monkeypatch: pytest.MonkeyPatch, server: S3Server, waits: list[float]
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    line = r"proxy http://127.0.0.1:1 \(HTTPS_PROXY\) cannot be reached\) \d times; check HTTPS_PROXY"
    with pytest.raises(TransientError, match=rf"^{DATA} could not be read \({line}"):
        fetch_url(DATA)
    variables = server.environment | {"AWS_ENDPOINT_URL_S3": "https://s3.example.org"}
    with pytest.raises(TransientError, match=rf"^https://s3.example.org could not be reached \({line}"):
        open_store(f"s3://{BUCKET}/a", variables, attempts=2).check_access()
    assert len(waits) == 5 + 1


def test_a_name_is_looked_up_once_and_what_was_found_is_used(
    site: WebServer, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look-up could find another address than the one that was checked (DNS rebinding)."""
    monkeypatch.setenv("NO_PROXY", "*")
    url = f"https://data.example.org:{site.server_port}/a.zip"
    names("data.example.org", "192.0.2.1", "127.0.0.1")
    connected: list[object] = []

    def connect(_socket: socket.socket, address: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", connect)
        patched.setattr("components.shared.data.sources.http_transfer.ATTEMPTS", 1)
        with pytest.raises(TransientError):
            fetch_url(url)
    assert connected == [("192.0.2.1", site.server_port)]
    with pytest.raises(UserError, match=r"leads to data.example.org, at 127.0.0.1, an address of this machine"):
        fetch_url(url)
    assert not site.asked


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "::1", "0.0.0.0"])
def test_names_do_not_lead_to_addresses_that_are_refused(
    names: Names, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    names("data.example.org", address)
    with pytest.raises(UserError, match=rf"^{DATA} leads to data.example.org, at .*; give the address of a data set"):
        fetch_url(DATA)


def test_behind_a_proxy_literal_addresses_are_refused(proxy_server: ProxyServer) -> None:
    for host in ("169.254.169.254", "[fe80::1]", "2852039166", "0xa9.0xfe.0xa9fe", "[::ffff:169.254.169.254]"):
        with pytest.raises(UserError, match="an address of a local link"):
            fetch_url(f"https://{host}/a.zip")
    assert not proxy_server.asked
