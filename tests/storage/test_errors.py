"""Errors of the server are reported in one line with the remedy."""

import socket
from datetime import UTC, datetime, timedelta

import pytest

from components.shared.core.errors import UserError
from components.shared.storage.client import Store, open_store
from components.shared.storage.retry import ATTEMPTS
from tests.servers.s3_server import READER_KEY, READER_SECRET, Proxy, S3Server, answer, proxy, respond
from tests.storage.samples import ENVIRONMENT, error_line

pytestmark = pytest.mark.slow  # each test needs the real server


def test_a_missing_bucket_is_reported_and_not_created(server: S3Server) -> None:
    store = open_store("s3://no-such-bucket/a", server.environment)
    for call in (
        lambda: store.get_bytes("a"),
        lambda: store.put_bytes(b"1", "a"),
        lambda: list(store.list()),
    ):
        with pytest.raises(UserError, match=r"s3://no-such-bucket/a.*: there is no such bucket; create it"):
            call()
    assert not server.client.bucket_exists("no-such-bucket")


def test_a_denied_write_is_reported(server: S3Server, store: Store, uri: str) -> None:
    store.put_bytes(b"1", "a")
    keys = {"AWS_ACCESS_KEY_ID": READER_KEY, "AWS_SECRET_ACCESS_KEY": READER_SECRET}
    reader = open_store(uri, {**server.environment, **keys})
    assert reader.get_bytes("a")[0] == b"1"
    for call in (lambda: reader.put_bytes(b"2", "a"), lambda: reader.remove("a")):
        with pytest.raises(UserError, match="allow these credentials to list the bucket, and read, write and delete"):
            call()
    assert store.get_bytes("a")[0] == b"1"


def test_a_denied_read_asks_for_no_right_to_write(proxied: Store, network: Proxy) -> None:
    for call in (lambda: proxied.get_bytes("a"), lambda: proxied.stat("a"), lambda: next(proxied.list())):
        network.script = [answer(403, "AccessDenied")] * 2
        with pytest.raises(UserError, match="allow these credentials to list the bucket and read its objects"):
            call()
        network.script = []


def test_a_wrong_clock_is_reported(server: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minio.api.time.utcnow", lambda: datetime.now(UTC) - timedelta(hours=1))
    assert "this machine's clock is wrong; set it" in error_line(uri, server.environment)


@pytest.mark.parametrize("code", ["AuthorizationHeaderMalformed", "PermanentRedirect"])
def test_a_wrong_region_is_reported(proxied: Store, network: Proxy, code: str) -> None:
    for call in (lambda: proxied.get_bytes("a"), lambda: proxied.stat("a")):
        network.script = [answer(400, code)] * 2
        with pytest.raises(UserError, match="the bucket is in another region; set AWS_REGION to it"):
            call()
        network.script = []


def test_an_unreachable_server_is_reported(waits: list[float], uri: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        reported = error_line(uri, {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": url})
    assert reported == f"{url} could not be reached {ATTEMPTS} times; check the address, or try again later"
    assert len(waits) == ATTEMPTS - 1


def test_a_server_that_does_not_speak_s3_is_reported(uri: str) -> None:
    with proxy("") as web:
        web.script = [respond(404, b"<html>nothing here</html>", "text/html")]
        reported = error_line(uri, {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": web.url})
    assert "the server does not speak S3" in reported and "check the address in AWS_ENDPOINT_URL_S3" in reported


def without_dns(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    """Make every look-up of a host fail, and record the hosts."""

    def getaddrinfo(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_on_aws_the_bucket_is_part_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    without_dns(monkeypatch, asked)
    reported = error_line("s3://bucket/a", {**ENVIRONMENT, "AWS_REGION": "eu-west-1"})
    assert reported == "https://bucket.s3.eu-west-1.amazonaws.com is not known; check the address"
    assert asked == ["bucket.s3.eu-west-1.amazonaws.com"]
