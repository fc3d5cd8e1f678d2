"""Transient failures are retried, permanent ones are not, and damaged data is never used."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.shared.core.errors import TransientError, UserError
from components.shared.storage.client import PART_BYTES, Store, open_store
from components.shared.storage.errors import NoSuchObject
from components.shared.storage.retry import ATTEMPTS, MAX_WAIT_SECONDS
from tests.sample_files import sha256
from tests.servers.s3_server import (
    BUCKET,
    Fault,
    Proxy,
    S3Server,
    answer,
    cut_after_headers,
    delay,
    drop_response,
    forward,
    hang_up,
    proxy,
    respond,
    s3_server,
    truncate,
)
from tests.storage.samples import LARGE, SMALL, TWO_PARTS, write

pytestmark = pytest.mark.slow  # each test needs the real server


PERMANENT = {
    "revoked": (answer(403, "InvalidAccessKeyId"), "the access key is not known; check AWS_ACCESS_KEY_ID"),
    "denied": (answer(403, "AccessDenied"), "access is denied; allow these credentials to list the bucket"),
    "expired": (answer(400, "ExpiredToken"), "the credentials have expired; set AWS_SESSION_TOKEN"),
    "bucket gone": (answer(404, "NoSuchBucket"), "there is no such bucket; create it"),
    "clock": (answer(403, "RequestTimeTooSkewed"), "this machine's clock is wrong; set it"),
    "full": (answer(507, "XMinioStorageFull"), "the store is full; free some space there"),
}


@pytest.mark.parametrize("fault, reported", PERMANENT.values(), ids=PERMANENT.keys())
def test_a_permanent_failure_during_a_transfer_is_reported_once(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path, fault: Fault, reported: str
) -> None:
    path = write(tmp_path / "file", LARGE)
    network.script = [forward, forward]  # the start of the upload, and a part
    network.always = fault
    with pytest.raises(UserError, match=reported) as error:
        proxied.put_file(path, "file")
    assert "\n" not in str(error.value)
    assert path.read_bytes() == LARGE
    assert len(network.asked) <= 5  # the other two parts and the completion, each once
    network.always = None
    assert not proxied.exists("file")
    proxied.put_file(path, "file")
    network.asked.clear()
    network.script, network.always = [truncate], fault
    with pytest.raises(UserError, match=reported):
        proxied.get_file("file", tmp_path / "got")
    assert len(network.asked) == 2 and list(tmp_path.iterdir()) == [path]


TRANSIENT = {
    "503": answer(503, "SlowDown"),
    "500": answer(500, "InternalError"),
    "429": answer(429, Retry_After="7"),
    "hang up": hang_up,
    "lost response": drop_response,
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_transient_failure_is_survived(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path, fault: Fault
) -> None:
    path = write(tmp_path / "file", TWO_PARTS)
    network.script = [fault, forward, fault, fault, forward, forward, fault, forward]  # start, two parts, completion
    proxied.put_file(path, "file")
    assert not network.script
    network.script = [fault]
    assert proxied.get_file("file", tmp_path / "got") == sha256(TWO_PARTS)
    network.script = [fault]
    assert [entry.name for entry in proxied.list()] == ["file"]
    network.script = [fault]
    proxied.remove("file")
    assert len(waits) >= 7
    assert not proxied.exists("file")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_each_transient_status_is_retried(proxied: Store, network: Proxy, waits: list[float], status: int) -> None:
    network.script = [answer(status)]
    proxied.put_bytes(SMALL, "a")
    assert len(waits) == 1 and proxied.get_bytes("a")[0] == SMALL


@pytest.mark.parametrize("code", ["RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "OperationAborted"])
def test_bytes_that_arrived_damaged_are_sent_again(
    proxied: Store, network: Proxy, waits: list[float], code: str
) -> None:
    network.script = [answer(400, code)]
    etag = proxied.put_bytes(SMALL, "a")
    assert proxied.get_bytes("a") == (SMALL, etag)
    assert waits


def test_an_upload_whose_completion_fails_is_repeated(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path
) -> None:
    network.script = [forward, forward, forward, answer(200, "InternalError")]
    proxied.put_file(write(tmp_path / "file", TWO_PARTS), "file")
    assert proxied.get_file("file", tmp_path / "got") == sha256(TWO_PARTS)


def test_a_completion_whose_response_was_lost_is_recognised(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path
) -> None:
    gone = answer(404, "NoSuchUpload")
    path = write(tmp_path / "file", TWO_PARTS)
    network.script = [forward, forward, forward, gone, gone]
    with pytest.raises(UserError, match="NoSuchUpload"):
        proxied.put_file(path, "file")
    network.script = [forward, forward, forward, drop_response, gone, gone]
    assert proxied.put_file(path, "file") == sha256(TWO_PARTS)


def test_retry_after_sets_the_wait(proxied: Store, network: Proxy, waits: list[float]) -> None:
    network.script = [answer(503, "SlowDown", Retry_After="7"), answer(429, Retry_After="7777"), respond(200, b"")]
    proxied.put_bytes(b"1", "a")
    assert waits == [7, 60]


def test_waits_grow_and_have_jitter(proxied: Store, network: Proxy, waits: list[float]) -> None:
    for _ in range(2):
        network.script = [*[hang_up] * (ATTEMPTS - 1), respond(200, b"")]
        proxied.put_bytes(b"1", "a")
    first, second = waits[: len(waits) // 2], waits[len(waits) // 2 :]
    assert first != second
    for times in (first, second):
        shares = [wait / min(0.5 * 2**number, MAX_WAIT_SECONDS) for number, wait in enumerate(times)]
        assert all(0.5 <= share <= 1.5 for share in shares)


def test_a_download_resumes_where_it_was_cut(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path
) -> None:
    proxied.put_file(write(tmp_path / "file", LARGE), "file")
    network.script = [truncate, truncate]
    assert proxied.get_file("file", tmp_path / "got") == sha256(LARGE)
    ranges = [headers.get("Range") for method, _, headers in network.asked if method == "GET"]
    starts = (len(LARGE) // 2, len(LARGE) // 2 + (len(LARGE) + 1) // 4)
    assert ranges == [None, *(f"bytes={start}-{len(LARGE) - 1}" for start in starts)]


def test_a_download_may_be_cut_often_if_it_makes_progress(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path
) -> None:
    proxied.put_bytes(SMALL, "file")
    network.script = [truncate] * (ATTEMPTS + 2)
    assert proxied.get_file("file", tmp_path / "got") == sha256(SMALL)


def test_a_server_that_ignores_ranges_is_not_trusted(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path
) -> None:
    proxied.put_bytes(SMALL, "file")
    network.script = [truncate, respond(200, SMALL, "application/octet-stream")]
    with pytest.raises(TransientError, match="came with 150,000 bytes, not 100,000"):
        proxied.get_file("file", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


def test_redirects_are_not_followed(proxied: Store, network: Proxy) -> None:
    network.script = [answer(307, "TemporaryRedirect", Location=f"{network.url}/elsewhere")]
    with pytest.raises(UserError, match="TemporaryRedirect"):
        proxied.get_bytes("a")
    assert len(network.asked) == 1


def test_an_object_that_changes_during_a_download_is_refused(
    server: S3Server, uri: str, proxied: Store, network: Proxy, waits: list[float], tmp_path: Path
) -> None:
    proxied.put_bytes(SMALL, "file")
    store = open_store(uri, server.environment)
    network.script = [lambda handler: truncate(handler, lambda: store.put_bytes(SMALL[::-1], "file"))]
    with pytest.raises(TransientError, match="was changed while it was read"):
        proxied.get_file("file", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [hang_up, answer(503, "SlowDown")], ids=["hang up", "503"])
def test_a_server_that_keeps_failing_is_given_up(
    proxied: Store, network: Proxy, waits: list[float], fault: Fault, tmp_path: Path
) -> None:
    for call in (
        lambda: proxied.put_bytes(b"1", "a"),
        lambda: proxied.put_file(write(tmp_path / "file", b"1"), "a"),
        lambda: proxied.get_bytes("a"),
        lambda: proxied.stat("a"),
        lambda: list(proxied.list()),
        lambda: proxied.remove("a"),
    ):
        network.script = [fault] * ATTEMPTS
        network.asked.clear()
        with pytest.raises(TransientError, match=f"{network.url} .* {ATTEMPTS} times; check the address, or try again"):
            call()
        assert len(network.asked) == ATTEMPTS


def test_an_error_response_that_is_cut_is_requested_again(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path
) -> None:
    network.script = [truncate, truncate]
    with pytest.raises(NoSuchObject):
        proxied.get_bytes("nothing")
    network.script = [truncate]
    with pytest.raises(NoSuchObject):
        proxied.get_file("nothing", tmp_path / "got")
    assert len(waits) == 3


def test_a_download_that_is_always_cut_is_given_up(
    proxied: Store, network: Proxy, waits: list[float], tmp_path: Path
) -> None:
    proxied.put_bytes(SMALL, "file")
    network.script = [cut_after_headers] * ATTEMPTS
    with pytest.raises(TransientError, match=f"was cut {ATTEMPTS} times"):
        proxied.get_file("file", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status, code", [(403, "AccessDenied"), (404, "NoSuchBucket"), (400, "InvalidArgument")])
def test_a_permanent_failure_is_not_retried(
    proxied: Store, network: Proxy, waits: list[float], status: int, code: str
) -> None:
    network.script = [answer(status, code)]
    with pytest.raises(UserError, match=code):
        proxied.get_bytes("a")
    assert len(network.asked) == 1
    assert waits == []


def test_the_caller_sets_the_number_of_attempts(
    proxied: Store, server: S3Server, network: Proxy, waits: list[float]
) -> None:
    network.script = [hang_up] * 2
    store = open_store(proxied.uri(), {**server.environment, "AWS_ENDPOINT_URL_S3": network.url}, attempts=2)
    with pytest.raises(TransientError, match="broke the connection 2 times"):
        store.exists("a")


def test_one_request_in_ten_may_fail(proxied: Store, network: Proxy, tmp_path: Path) -> None:
    network.rate = 0.1
    contents = {f"{size}": random.Random(size).randbytes(size) for size in (*range(0, 200_000, 1_000), len(LARGE))}

    def send_and_fetch(name: str) -> None:
        assert proxied.put_file(write(tmp_path / name, contents[name]), name) == sha256(contents[name])
        assert proxied.get_file(name, tmp_path / f"{name}.got") == sha256(contents[name])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send_and_fetch, contents))
    assert {entry.name: entry.size for entry in proxied.list()} == {name: len(c) for name, c in contents.items()}


def test_an_upload_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        store = open_store(f"s3://{BUCKET}/a", server.environment)
        content = random.Random(0).randbytes(8 * PART_BYTES)
        path = write(tmp_path / "file", content)
        with proxy(server.address) as network, ThreadPoolExecutor(1) as pool:
            slow = open_store(f"s3://{BUCKET}/a", server.environment | {"AWS_ENDPOINT_URL_S3": network.url})
            network.script = [delay] * 20
            sent = pool.submit(slow.put_file, path, "file")
            while len(network.asked) < 4:
                time.sleep(0.01)
            server.kill()
            server.start()
            assert sent.result() == sha256(content)
        assert store.get_file("file", tmp_path / "got") == sha256(content)
