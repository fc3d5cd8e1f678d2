"""Downloads resume after a cut, are checked by digest, and happen once."""

import hashlib
import json
import random
import socket
from pathlib import Path
from typing import Any

import pytest

from components.shared.core.errors import TransientError, UserError
from components.shared.data.sources.http import UrlDocument, fetch_url
from components.shared.data.sources.http_transfer import ATTEMPTS
from components.shared.storage.retry import MAX_WAIT_SECONDS
from tests.sample_files import sha256
from tests.servers.web_server import WebServer, answer, cut_after, etag, run_web_server, whole

BODY = random.Random(0).randbytes(500_000)
HALF = len(BODY) // 2


pytestmark = pytest.mark.usefixtures("cache", "waits")


@pytest.fixture
def web_server(web_server: WebServer) -> WebServer:
    """The server, with a file."""
    web_server.files["/a.zip"] = BODY
    return web_server


def fetched(url: str) -> bytes:
    path, digest, *_ = fetch_url(url)
    content = path.read_bytes()
    assert digest == sha256(content)
    return content


def record_path(tmp_path: Path, url: str) -> Path:
    return tmp_path / "cache" / "torch2kubeflow" / "urls" / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


def test_a_file_is_cached_by_its_digest(web_server: WebServer, tmp_path: Path) -> None:
    assert fetched(f"{web_server.url}/a.zip") == BODY
    stored = tmp_path / "cache" / "torch2kubeflow" / "sha256"
    assert [path.name for path in stored.iterdir()] == [sha256(BODY)]


def test_a_cut_download_resumes(web_server: WebServer) -> None:
    web_server.script = [cut_after(HALF)]
    assert fetched(f"{web_server.url}/a.zip") == BODY
    assert "Range" not in web_server.asked[0]
    assert (web_server.asked[1]["Range"], web_server.asked[1]["If-Range"]) == (f"bytes={HALF}-", etag(BODY))


def test_a_server_without_ranges_starts_over(web_server: WebServer) -> None:
    web_server.script = [cut_after(HALF), whole]
    assert fetched(f"{web_server.url}/a.zip") == BODY


def test_the_rest_of_a_partial_range_is_requested(web_server: WebServer) -> None:
    piece = answer(206, BODY[HALF : HALF + 10], ETag=etag(BODY), Content_Range=f"bytes {HALF}-{HALF + 9}/{len(BODY)}")
    web_server.script = [cut_after(HALF), piece]
    assert fetched(f"{web_server.url}/a.zip") == BODY
    assert web_server.asked[2]["Range"] == f"bytes={HALF + 10}-"


def test_a_range_that_was_not_requested_is_not_used(web_server: WebServer) -> None:
    wrong = answer(206, BODY[:HALF], ETag=etag(BODY), Content_Range=f"bytes 0-{HALF - 1}/{len(BODY)}")
    web_server.script = [cut_after(HALF), wrong]
    assert fetched(f"{web_server.url}/a.zip") == BODY


@pytest.mark.parametrize("size", [HALF // 2, 3 * HALF])
def test_a_file_that_changed_meanwhile_starts_over(web_server: WebServer, size: int) -> None:
    changed = bytes(reversed(BODY * 2))[:size]

    def change(handler: Any) -> None:
        cut_after(HALF)(handler)
        web_server.files["/a.zip"] = changed

    web_server.script = [change]
    assert fetched(f"{web_server.url}/a.zip") == changed


def test_a_range_beyond_the_end_starts_over(web_server: WebServer) -> None:
    web_server.script = [cut_after(HALF), answer(416)]
    assert fetched(f"{web_server.url}/a.zip") == BODY
    assert "Range" not in web_server.asked[2]


def test_a_cut_download_without_a_validator_starts_over(web_server: WebServer) -> None:
    web_server.script = [lambda handler: handler.reply(200, BODY[:HALF], len(BODY))]
    assert fetched(f"{web_server.url}/a.zip") == BODY
    assert "Range" not in web_server.asked[1]


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_transient_failure_is_retried(web_server: WebServer, waits: list[float], code: int) -> None:
    web_server.script = [answer(code), answer(code)]
    assert fetched(f"{web_server.url}/a.zip") == BODY
    assert 0.25 <= waits[0] <= 0.75 and 0.5 <= waits[1] <= 1.5


@pytest.mark.parametrize(("asked", "low", "high"), [("7", 7, 7), ("86400", 0, 2 * MAX_WAIT_SECONDS), ("²", 0.25, 0.75)])
def test_retry_after_is_honoured_within_bounds(
    web_server: WebServer, waits: list[float], asked: str, low: float, high: float
) -> None:
    web_server.script = [answer(503, Retry_After=asked)]
    assert fetched(f"{web_server.url}/a.zip") == BODY
    assert low <= waits[0] <= high


def test_attempts_that_gain_nothing_are_limited(web_server: WebServer) -> None:
    web_server.script = [answer(503)] * 10
    with pytest.raises(UserError, match=f"answered 503 Service Unavailable {ATTEMPTS} times; try again later"):
        fetch_url(f"{web_server.url}/a.zip")
    assert len(web_server.asked) == ATTEMPTS


def test_attempts_that_gain_bytes_are_not_limited(web_server: WebServer) -> None:
    def next_piece(handler: Any) -> None:
        start = int(web_server.asked[-1].get("Range", "bytes=0-")[6:-1])
        end = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        handler.reply(206 if start else 200, BODY[start : start + 9], len(BODY), ETag='"1"', Content_Range=end)

    web_server.script = [next_piece] * (2 * ATTEMPTS)
    web_server.script.append(whole)
    assert fetched(f"{web_server.url}/a.zip") == BODY


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(code, "check the address") for code in (204, 300, 304, 404, 410)]
    + [(code, "make it readable without a login") for code in (401, 403)],
)
def test_another_status_is_final(web_server: WebServer, waits: list[float], code: int, remedy: str) -> None:
    web_server.script = [answer(code)]
    with pytest.raises(UserError, match=f"{web_server.url}/a.zip answered {code} .*; {remedy}"):
        fetch_url(f"{web_server.url}/a.zip")
    assert len(web_server.asked) == 1 and not waits


def test_a_wrong_digest_is_refused_and_not_cached(web_server: WebServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"has the digest sha256={sha256(BODY)}, not {'0' * 64}"):
        fetch_url(f"{web_server.url}/a.zip#sha256={'0' * 64}")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("fragment", ["sha256=12", "md5=" + "0" * 32, "x", "sha256=" + "g" * 64])
def test_a_fragment_that_is_not_a_digest_is_refused(web_server: WebServer, fragment: str) -> None:
    with pytest.raises(UserError, match=f"{fragment} has no digest after #"):
        fetch_url(f"{web_server.url}/a.zip#{fragment}")
    assert not web_server.asked


def test_a_cached_file_of_a_required_digest_needs_no_network(web_server: WebServer) -> None:
    url = f"{web_server.url}/a.zip#sha256={sha256(BODY).upper()}"
    assert fetched(url) == fetched(url) == BODY
    assert len(web_server.asked) == 1


def test_an_unchanged_file_is_not_sent_again(web_server: WebServer) -> None:
    assert fetched(f"{web_server.url}/a.zip") == fetched(f"{web_server.url}/a.zip") == BODY
    assert web_server.asked[1]["If-None-Match"] == etag(BODY)


def test_a_changed_file_is_downloaded_again(web_server: WebServer) -> None:
    fetch_url(f"{web_server.url}/a.zip")
    web_server.files["/a.zip"] = b"new"
    assert fetched(f"{web_server.url}/a.zip") == b"new"


def test_a_damaged_file_in_the_cache_is_downloaded_again(web_server: WebServer) -> None:
    for url in (f"{web_server.url}/a.zip", f"{web_server.url}/a.zip#sha256={sha256(BODY)}"):
        fetch_url(url)[0].write_bytes(b"damaged")
        assert fetched(url) == BODY
    assert not any("If-None-Match" in headers for headers in web_server.asked)


@pytest.mark.parametrize(
    "change",
    [{"sha256": "{}"}, {"sha256": "../../../mine"}, {"sha256": 7}, {"ETag": "a\r\nHost: b"}, {"ETag": "\u4e2d"}, None],
)
def test_a_damaged_record_is_ignored_and_said(
    web_server: WebServer, tmp_path: Path, change: dict[str, Any] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    url, mine = f"{web_server.url}/a.zip", tmp_path / "mine"
    mine.touch()
    fetch_url(url)
    record = record_path(tmp_path, url)
    text = json.dumps(json.loads(record.read_text()) | (change or {})).replace("{}", str(mine))
    record.write_text(text if change else text[:-9])
    assert fetched(url) == BODY and mine.exists()
    assert f"ignored: {record} " in capsys.readouterr().out
    assert "If-None-Match" not in web_server.asked[1]
    assert UrlDocument.read(record).sha256 == sha256(BODY)


def test_the_record_holds_address_digest_and_validators(web_server: WebServer, tmp_path: Path) -> None:
    fetch_url(f"{web_server.url}/a.zip")
    record = json.loads(record_path(tmp_path, f"{web_server.url}/a.zip").read_text())
    assert (record["url"], record["sha256"]) == (f"{web_server.url}/a.zip", sha256(BODY))
    assert record["ETag"] == etag(BODY)


def test_the_last_file_is_used_if_the_server_is_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    with run_web_server() as gone:
        gone.files["/a.zip"] = BODY
        fetch_url(f"{gone.url}/a.zip")
    assert fetched(f"{gone.url}/a.zip") == BODY
    assert f"(ConnectionError) {ATTEMPTS} times; try again later; using the file of 20" in capsys.readouterr().out


def test_an_unreachable_server_is_reported() -> None:
    with run_web_server() as gone:
        pass
    with pytest.raises(UserError, match=f"{gone.url}/a.zip could not be read .ConnectionError. {ATTEMPTS} times"):
        fetch_url(f"{gone.url}/a.zip")


@pytest.mark.parametrize(
    "address", ["http://example.com/a.zip", "http://127.0.0.2/a.zip", "http://localhost.net/a.zip"]
)
def test_plain_http_is_accepted_for_loopback_only(address: str) -> None:
    with pytest.raises(UserError, match=f"{address} is not https"):
        fetch_url(address)


def test_a_redirect_is_followed(web_server: WebServer) -> None:
    web_server.script = [answer(302, Location="/a.zip")]
    assert fetched(f"{web_server.url}/old.zip") == BODY


def test_a_redirect_over_plain_http_is_not_followed(web_server: WebServer) -> None:
    away = f"{web_server.url.replace('127.0.0.1', '0.0.0.0')}/a.zip"  # this machine, but by no loopback name
    web_server.script = [answer(302, Location=away)]
    with pytest.raises(UserError, match=f"old.zip leads to {away}, which is not https"):
        fetch_url(f"{web_server.url}/old.zip")
    assert len(web_server.asked) == 1


@pytest.mark.parametrize("location", ["http://[", "http://", "ftp://127.0.0.1/a.zip"])
def test_a_redirect_to_an_invalid_address_is_reported(web_server: WebServer, location: str) -> None:
    web_server.script = [answer(302, Location=location)]
    with pytest.raises(UserError, match=f"{web_server.url}/old.zip"):
        fetch_url(f"{web_server.url}/old.zip")


def test_ten_redirects_are_followed_and_no_more(web_server: WebServer) -> None:
    web_server.script = [answer(302, Location="/old.zip")] * 9 + [answer(307, Location="a.zip")]
    assert fetched(f"{web_server.url}/old.zip") == BODY
    web_server.script = [answer(302, Location="/old.zip")] * 11
    with pytest.raises(UserError, match=r"other\.zip leads to more than 10 redirects; give the address of the file"):
        fetch_url(f"{web_server.url}/other.zip")
    assert len(web_server.asked) == 11 + 11


def test_a_content_encoding_is_not_decoded(web_server: WebServer) -> None:
    web_server.script = [answer(200, b"\x1f\x8b not gzip", Content_Encoding="gzip")]
    assert fetched(f"{web_server.url}/a.zip") == b"\x1f\x8b not gzip"


def test_a_temporary_failure_of_name_resolution_is_retried(
    web_server: WebServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, failures = (
        socket.getaddrinfo,
        [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")] * 2,
    )

    def look_up(*arguments: object) -> object:
        if failures:
            raise failures.pop()
        return known(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert fetched(f"{web_server.url.replace('127.0.0.1', 'localhost')}/a.zip") == BODY
    assert len(waits) == 2


def test_a_lasting_failure_is_a_transient_error(web_server: WebServer) -> None:
    web_server.script = [answer(503)] * ATTEMPTS
    with pytest.raises(TransientError, match="try again later"):
        fetch_url(f"{web_server.url}/a.zip")


def test_an_unknown_host_is_reported(waits: list[float]) -> None:
    with pytest.raises(UserError, match=r"nowhere\.invalid is not a known host; check the address and the network"):
        fetch_url("https://nowhere.invalid/a.zip")
    assert not waits
