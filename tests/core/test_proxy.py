"""By which proxy a URL goes: the variables, their exceptions, and what never goes by one."""

import pytest

from components.shared.core.errors import UserError
from components.shared.core.proxy import proxy_for


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for each scheme, and nothing else."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://plain.proxy:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://tls.proxy:3128")


def test_each_scheme_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [str(proxy_for(f"{scheme}://data.example.org/a.zip")) for scheme in ("http", "https", "s3", "file")] == [
        "proxy http://plain.proxy:3128 (HTTP_PROXY)",
        "proxy http://tls.proxy:3128 (HTTPS_PROXY)",
        "None",
        "None",
    ]
    monkeypatch.setenv("https_proxy", "other.proxy:8080")
    assert str(proxy_for("https://data.example.org")) == "proxy http://other.proxy:8080 (https_proxy)"
    monkeypatch.setenv("https_proxy", "")
    assert proxy_for("https://data.example.org") is None


@pytest.mark.parametrize("no_proxy", [None, "", "other.example.org"])
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "127.0.0.1",
        "127.8.9.10",
        "127.1",
        "0x7f000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "s3.storage.svc",
        "minio.team.svc.cluster.local",
        "minio.team.svc.cluster.local.",
        "10.96.0.1",
    ],
)
def test_what_is_near_never_goes_by_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str | None) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    if no_proxy is not None:
        monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(f"http://{host}:9000/bucket") is proxy_for(f"https://{host}") is None


@pytest.mark.parametrize(
    "host",
    ["svc.example.org", "localhost.example.org", "10.96.0.1", "s3.storage.svc.example.org", "1e3.example.org", "12ab"],
)
def test_what_only_looks_near_goes_by_the_proxy(host: str) -> None:
    assert proxy_for(f"https://{host}")


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("*", "https://data.example.org", ""),
        ("example.org", "https://data.example.org", "https://badexample.org"),
        ("example.org", "https://EXAMPLE.org", "https://example.org.evil.net"),
        (".example.org, other.net", "https://data.example.org", "https://example.com"),
        ("*.example.org other.net", "https://other.net", "https://another.net"),
        ("example.org:8443", "https://example.org:8443", "https://example.org"),
        ("example.org:443", "https://example.org", "https://example.org:8443"),
        ("10.0.0.0/8", "http://10.1.2.3:9000", "http://11.1.2.3:9000"),
        ("10.1.2.3", "http://10.1.2.3:9000", "http://10.1.2.30"),
        ("fd00::/8,[2001:db8::1]", "http://[fd12::1]", "http://[2001:db8::2]"),
        ("10.0.0.0/8", "http://10.255.0.1", "http://10.example.org"),
        (",, ,", "http://localhost", "http://data.example.org"),
    ],
)
def test_no_proxy_names_exceptions(monkeypatch: pytest.MonkeyPatch, no_proxy: str, direct: str, proxied: str) -> None:
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(direct) is None
    assert not proxied or proxy_for(proxied)


def test_a_login_is_sent_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:p%40ss@tls.proxy:3128/")
    proxy = proxy_for("https://data.example.org")
    assert proxy and (proxy.address, str(proxy)) == (
        "http://tls.proxy:3128",
        "proxy http://tls.proxy:3128 (HTTPS_PROXY)",
    )
    assert proxy.headers == {"proxy-authorization": "Basic YWRhOnBAc3M="}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("socks5://ada:secret@proxy:1080", "HTTPS_PROXY names a socks5 proxy, which is not supported"),
        ("http://ada:secret@:3128", "HTTPS_PROXY is not an address"),
        ("http://ada:secret@proxy:port", "HTTPS_PROXY is not an address"),
        ("http://[::1", "HTTPS_PROXY is not an address"),
    ],
)
def test_a_variable_that_names_no_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(UserError) as refused:
        proxy_for("https://data.example.org")
    assert str(refused.value) == f"{message}; give http://HOST:PORT"
