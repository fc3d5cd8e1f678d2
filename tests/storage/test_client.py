"""The store against a real S3 server, and what it survives between the two."""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import minio.api
import pytest

from components.shared.core.errors import UserError
from components.shared.storage import retry
from components.shared.storage.client import PART_BYTES, Store, open_store
from components.shared.storage.errors import Conflict, NoSuchObject
from components.shared.storage.retry import ATTEMPTS, MAX_WAIT_SECONDS
from tests.servers.s3_server import (
    BUCKET,
    KEY,
    READER_KEY,
    READER_SECRET,
    SECRET,
    Fault,
    Handler,
    Proxy,
    S3Server,
    answer,
    cut_at_once,
    delay,
    hand_on,
    hang_up,
    lose_answer,
    proxy,
    s3_server,
    tell,
    truncate,
)

SMALL = random.Random(0).randbytes(100_000)
TWO_PARTS = random.Random(2).randbytes(PART_BYTES + 12_345)
LARGE = random.Random(1).randbytes(2 * PART_BYTES + 12_345)  # three parts
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

pytestmark = pytest.mark.slow  # each needs the real server


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/tests/{request.node.name.partition('[')[0]}-{time.monotonic_ns()}"


@pytest.fixture
def store(server: S3Server, uri: str) -> Store:
    return open_store(uri, server.environment)


@pytest.fixture
def between(server: S3Server) -> Iterator[Proxy]:
    """A proxy before the server."""
    with proxy(server.address) as between:
        yield between


@pytest.fixture
def faulty(server: S3Server, uri: str, between: Proxy) -> Store:
    """The store behind the proxy."""
    return open_store(uri, {**server.environment, "AWS_ENDPOINT_URL_S3": between.url})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts are listed, not waited."""
    waits: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waits.append)
    return waits


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("content", [b"", b"x", SMALL, LARGE], ids=["empty", "byte", "small", "parts"])
def test_a_file_comes_back_as_it_was_sent(store: Store, tmp_path: Path, content: bytes) -> None:
    assert store.put_file(written(tmp_path / "sent", content), "a/file.bin") == sha256(content)
    assert store.get_file("a/file.bin", tmp_path / "new" / "got", sha256(content)) == sha256(content)
    assert (tmp_path / "new" / "got").read_bytes() == content
    found = store.stat("a/file.bin")
    assert found and (found.name, found.size) == ("a/file.bin", len(content))
    assert found.modified and abs(datetime.now(UTC) - found.modified) < timedelta(minutes=1)


def test_bytes_come_back_with_their_etag(store: Store) -> None:
    etag = store.put_bytes(SMALL, "pointer")
    assert store.get_bytes("pointer") == (SMALL, etag)
    found = store.stat("pointer")
    assert found and found.etag == etag


@pytest.mark.parametrize("name", ["a b", "a+b", "ü/é", "100%", "x=1&y=2", "what?", "#1", "~(a)*'!", "a" * 200, "日本"])
def test_a_name_may_be_anything_that_a_path_may(store: Store, name: str) -> None:
    store.put_bytes(b"1", name)
    assert store.get_bytes(name)[0] == b"1"
    assert [entry.name for entry in store.list()] == [name]
    store.remove(name)
    assert not store.exists(name)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/./b", "a/..", "a\nb", "a\0", "\udc80"])
def test_a_name_cannot_leave_the_prefix(store: Store, name: str, tmp_path: Path) -> None:
    for call in (
        lambda: store.put_bytes(b"1", name),
        lambda: store.get_bytes(name),
        lambda: store.put_file(written(tmp_path / "file", b"1"), name),
        lambda: store.get_file(name, tmp_path / "got"),
        lambda: store.stat(name),
        lambda: store.remove(name),
    ):
        with pytest.raises(UserError, match="is not a valid object name"):
            call()
    assert not (tmp_path / "got").exists()


def test_only_what_lies_below_the_prefix_is_listed(server: S3Server, store: Store, uri: str) -> None:
    for name in ("b", "a/2", "a/1", "ab/3"):
        store.put_bytes(b"12", name)
    open_store(f"{uri}-neighbour", server.environment).put_bytes(b"1", "a/4")
    server.client.put_object(BUCKET, urlsplit(uri).path[1:] + "/a/", BytesIO(), 0)  # as consoles mark a folder
    assert server.client.stat_object(BUCKET, urlsplit(uri).path[1:] + "/b").size == 2
    assert [entry.name for entry in store.list()] == ["a/1", "a/2", "ab/3", "b"]
    assert [(entry.name, entry.size) for entry in store.list("a")] == [("a/1", 2), ("a/2", 2)]
    assert list(store.list("c")) == []


def test_a_store_may_be_a_whole_bucket(server: S3Server) -> None:
    store = open_store(f"s3://{BUCKET}", server.environment)
    store.put_bytes(b"1", "at-the-top")
    assert "at-the-top" in [entry.name for entry in store.list()]
    assert store.uri("at-the-top") == f"s3://{BUCKET}/at-the-top"
    store.remove("at-the-top")


def test_a_listing_has_many_pages(store: Store) -> None:
    names = [f"{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put_bytes(b"", name), names))
    assert [entry.name for entry in store.list()] == names
    store.remove(*names, "never there")
    assert list(store.list()) == []


def test_a_hundred_thousand_objects_are_listed_in_constant_memory(uri: str) -> None:
    """Pages as a server tells them, made here: 100,000 objects would take minutes to write."""
    pages = 100

    def page(handler: Handler) -> None:
        after = int(parse_qs(urlsplit(handler.path).query).get("continuation-token", ["0"])[0])
        names = [f"{urlsplit(uri).path[1:]}/{after * 1000 + number:06}" for number in range(1000)]
        objects = "".join(f"<Contents><Key>{name}</Key><Size>1</Size><ETag>e</ETag></Contents>" for name in names)
        rest = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{after + 1}</NextContinuationToken>"
        body = f"<ListBucketResult><Name>{BUCKET}</Name>{objects}{rest * (after < pages - 1)}</ListBucketResult>"
        tell(200, body.encode())(handler)

    with proxy("") as server:
        server.script = [page] * pages
        entries = open_store(uri, {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": server.url}).list()
        for number, entry in enumerate(entries):
            assert entry.name == f"{number:06}"
            if number == 10_000:
                before = resident_bytes()
                assert len(server.asked) <= 12
    assert number == 99_999
    assert resident_bytes() - before < 16 * 2**20


@pytest.mark.parametrize("call", ["put_file(sys.argv[1], 'file')", "get_file('file', sys.argv[1] + '.got')"])
def test_a_large_file_travels_in_little_memory(
    server: S3Server, store: Store, tmp_path: Path, uri: str, call: str
) -> None:
    path = written(tmp_path / "file", b"")
    os.truncate(path, 128 * 2**20)
    store.put_file(path, "file")
    code = "import os, resource, sys; from components.shared.storage.client import open_store; "
    code += "store = open_store(sys.argv[2], os.environ); store.exists('file'); "
    code += "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak(); "
    code += f"store.{call}; print('KiB more:', peak() - before)"
    # A process of its own, started by another: the peak counts what the starting process held.
    command = ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", code, str(path), uri]
    output = subprocess.run(
        command, cwd=ROOT, env=server.environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert int(output.rpartition("KiB more:")[2]) < 64 * 1024


def test_what_is_not_there_is_told(store: Store, tmp_path: Path) -> None:
    assert store.stat("none") is None
    assert not store.exists("none")
    with pytest.raises(NoSuchObject, match=re.escape(f"{store.uri('none')} does not exist")):
        store.get_bytes("none")
    with pytest.raises(NoSuchObject):
        store.get_file("none", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_parts_travel_side_by_side(faulty: Store, between: Proxy, tmp_path: Path) -> None:
    between.script = [delay] * 4
    faulty.put_file(written(tmp_path / "file", LARGE), "file")
    assert between.most_busy >= 2
    assert [method for method, _, _ in between.asked].count("PUT") == 3


def test_a_conditional_write_changes_only_what_it_expects(store: Store) -> None:
    first = store.put_bytes(b"1", "pointer", if_absent=True)
    with pytest.raises(Conflict, match="was written by another"):
        store.put_bytes(b"2", "pointer", if_absent=True)
    second = store.put_bytes(b"2", "pointer", if_match=first)
    with pytest.raises(Conflict):
        store.put_bytes(b"3", "pointer", if_match=first)
    with pytest.raises(Conflict):
        store.put_bytes(b"3", "not there", if_match=first)
    assert store.get_bytes("pointer") == (b"2", second)


def test_of_many_writers_at_once_one_wins(store: Store) -> None:
    etag, gate = "", threading.Barrier(24)
    for _ in range(3):  # the first makes the object, the others replace it

        def write(number: int, etag: str = etag) -> bytes | None:
            gate.wait()
            content = f"{etag} {number}".encode()  # new in each round: an ETag is one of the content
            try:
                store.put_bytes(content, "pointer", if_absent=not etag, if_match=etag)
            except Conflict:
                return None
            return content

        with ThreadPoolExecutor(24) as pool:
            winners = [won for won in pool.map(write, range(24)) if won is not None]
        content, etag = store.get_bytes("pointer")
        assert winners == [content]


@pytest.mark.parametrize("condition", [{"if_absent": True}, {"if_match": "etag"}])
def test_a_write_whose_answer_was_lost_has_won(
    faulty: Store, between: Proxy, waits: list[float], condition: dict[str, bool | str]
) -> None:
    if "if_match" in condition:
        condition = {"if_match": faulty.put_bytes(b"0", "pointer")}
    between.script = [lose_answer]
    etag = faulty.put_bytes(b"1", "pointer", **condition)  # type: ignore[arg-type]
    assert faulty.get_bytes("pointer") == (b"1", etag)
    assert waits


def test_damaged_bytes_are_never_used(server: S3Server, store: Store, uri: str, tmp_path: Path) -> None:
    key = urlsplit(uri).path[1:] + "/file"
    damaged = bytes([SMALL[0] ^ 1]) + SMALL[1:]
    server.client.put_object(BUCKET, key, BytesIO(damaged), len(damaged), metadata={"sha256": sha256(SMALL)})
    for call in (lambda: store.get_file("file", tmp_path / "got"), lambda: store.get_bytes("file")):
        with pytest.raises(
            UserError, match=f"is damaged: its SHA-256 is {sha256(damaged)}, not {sha256(SMALL)}; upload it again"
        ):
            call()
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_demanded_is_refused(store: Store, tmp_path: Path) -> None:
    store.put_file(written(tmp_path / "sent", SMALL), "file")
    with pytest.raises(UserError, match="is damaged: its SHA-256 is"):
        store.get_file("file", tmp_path / "got", sha256(b"another"))
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("later", [LARGE[:-1] + b"!", LARGE[:PART_BYTES]], ids=["other", "shorter"])
def test_a_file_that_changes_while_it_is_sent_is_refused(
    faulty: Store, between: Proxy, tmp_path: Path, later: bytes
) -> None:
    path = written(tmp_path / "file", LARGE)

    def change(handler: Handler) -> None:
        path.write_bytes(later)
        hand_on(handler)

    between.script = [change]
    with pytest.raises(UserError, match="is damaged, or was changed during the upload; create the file again"):
        faulty.put_file(path, "file")
    assert not faulty.exists("file")


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "parts"])
def test_a_file_of_another_digest_is_not_sent(store: Store, tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "file", content)
    with pytest.raises(UserError, match="is damaged, or was changed during the upload"):
        store.put_file(path, "file", sha256(b"another"))
    assert not store.exists("file")
    assert store.put_file(path, "file", sha256(content)) == sha256(content)


def test_large_objects_are_no_small_ones(store: Store, tmp_path: Path) -> None:
    store.put_bytes(SMALL, "file")
    with pytest.raises(UserError, match="has 100,000 bytes, and 99,999 are allowed"):
        store.get_bytes("file", limit=99_999)


def test_a_full_disk_is_told_before(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_bytes(SMALL, "file")
    monkeypatch.setattr("components.shared.storage.client.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match="has 100,000 bytes, and 10 are free"):
        store.get_file("file", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_told(store: Store, tmp_path: Path) -> None:
    store.put_file(written(tmp_path / "file", LARGE), "file")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(LARGE) // 2, old[1]))
    try:
        with pytest.raises(
            UserError, match=f"/file does not fit at {tmp_path}/got .*; raise the limit on the size of a file"
        ):
            store.get_file("file", tmp_path / "got")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


FILL = """
import os, sys
from pathlib import Path
from tests.servers.s3_server import BUCKET, s3_server
from components.shared.core.errors import UserError
from components.shared.storage.client import open_store
room, path = Path(sys.argv[1]), Path(sys.argv[2])
with s3_server(room) as server:
    store = open_store(f"s3://{BUCKET}/a", server.environment, attempts=2)
    store.put_file(path, "first")
    try:
        store.put_file(path, "second")
    except UserError as error:
        print("told:", error)
    print("left:", [entry.name for entry in store.list()], list(store.unfinished_uploads()), path.exists())
"""


def test_a_server_whose_disk_is_full_is_told_and_holds_no_half(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    path = written(tmp_path / "file", random.Random(0).randbytes(60 * 2**20))  # SeaweedFS packs zeros
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs -o size=100m none "$0" && exec "$@"']
    mount.append(str(tmp_path / "room"))
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no one mount a small disk")
    command = [*mount, sys.executable, "-c", FILL, str(tmp_path / "room"), str(path)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout
    assert re.search("told: .* answered 500 Internal Server Error 2 times; check the address, or try again", output)
    assert "left: ['first'] [] True" in output


SEND = """
import os, sys
from components.shared.storage.client import open_store
open_store(sys.argv[1], os.environ).put_file(sys.argv[2], "sent/file")
"""


def test_an_upload_whose_process_was_killed_is_found_and_removed(
    server: S3Server, store: Store, faulty: Store, between: Proxy, uri: str, tmp_path: Path
) -> None:
    path, begun = written(tmp_path / "file", LARGE), datetime.now(UTC)
    environment = {**os.environ, **server.environment, "AWS_ENDPOINT_URL_S3": between.url}
    between.script = [hand_on, hand_on, lambda handler: time.sleep(60)]
    with subprocess.Popen([sys.executable, "-c", SEND, uri, str(path)], cwd=ROOT, env=environment) as sender:
        while between.script:
            time.sleep(0.01)
        sender.kill()
    assert not store.exists("sent/file")
    (upload,) = store.unfinished_uploads()
    assert upload.name == "sent/file" and abs(upload.started - begun) < timedelta(minutes=1)
    assert list(store.unfinished_uploads(begun - timedelta(minutes=1))) == []
    assert list(store.unfinished_uploads(begun + timedelta(minutes=1))) == [upload]
    assert list(open_store(f"{uri}-neighbour", server.environment).unfinished_uploads()) == []
    store.abort(upload)
    assert list(store.unfinished_uploads()) == []
    store.abort(upload)
    between.script = [answer(404, "NoSuchUpload")]  # as AWS tells it
    faulty.abort(upload)


def test_unfinished_uploads_have_many_pages(uri: str) -> None:
    folder = urlsplit(uri).path[1:]
    upload = "<Upload><Key>{}/{}</Key><UploadId>{}</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"

    def page(name: str, upload_id: str, more: str) -> Fault:
        body = f"<IsTruncated>{more}</IsTruncated>{upload.format(folder, name, upload_id)}"
        return tell(200, f"<ListMultipartUploadsResult>{body}</ListMultipartUploadsResult>".encode())

    with proxy("") as web:
        web.script = [page("a", "1", "true"), page("a", "2", "true"), page("b", "3", "false")]
        found = list(open_store(uri, {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": web.url}).unfinished_uploads())
        queries = [parse_qs(urlsplit(path).query) for _, path, _ in web.asked]
    assert [(upload.name, upload.id) for upload in found] == [("a", "1"), ("a", "2"), ("b", "3")]
    markers = [(query.get("key-marker"), query.get("upload-id-marker")) for query in queries]
    assert markers == [(None, None), ([f"{folder}/a"], ["1"]), ([f"{folder}/a"], ["2"])]


MEANWHILE = {
    "revoked": (answer(403, "InvalidAccessKeyId"), "the access key is not known; check AWS_ACCESS_KEY_ID"),
    "denied": (answer(403, "AccessDenied"), "access is denied; allow these credentials to list the bucket"),
    "expired": (answer(400, "ExpiredToken"), "the credentials have expired; set AWS_SESSION_TOKEN"),
    "bucket gone": (answer(404, "NoSuchBucket"), "there is no such bucket; create it"),
    "clock": (answer(403, "RequestTimeTooSkewed"), "this machine's clock is wrong; set it"),
    "full": (answer(507, "XMinioStorageFull"), "the store is full; free some space there"),
}


@pytest.mark.parametrize("fault, told", MEANWHILE.values(), ids=MEANWHILE.keys())
def test_what_goes_wrong_in_mid_transfer_is_told_once(
    faulty: Store, between: Proxy, waits: list[float], tmp_path: Path, fault: Fault, told: str
) -> None:
    path = written(tmp_path / "file", LARGE)
    between.script = [hand_on, hand_on]  # the start and a part
    between.always = fault
    with pytest.raises(UserError, match=told) as error:
        faulty.put_file(path, "file")
    assert "\n" not in str(error.value)
    assert path.read_bytes() == LARGE
    assert len(between.asked) <= 5  # with the other two parts and the end of the upload, each once
    between.always = None
    assert not faulty.exists("file")
    faulty.put_file(path, "file")
    between.asked.clear()
    between.script, between.always = [truncate], fault
    with pytest.raises(UserError, match=told):
        faulty.get_file("file", tmp_path / "got")
    assert len(between.asked) == 2 and list(tmp_path.iterdir()) == [path]


ONCE = {
    "503": answer(503, "SlowDown"),
    "500": answer(500, "InternalError"),
    "429": answer(429, Retry_After="7"),
    "hang up": hang_up,
    "lost answer": lose_answer,
}


@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE.keys())
def test_a_fault_that_passes_is_survived(
    faulty: Store, between: Proxy, waits: list[float], tmp_path: Path, fault: Fault
) -> None:
    path = written(tmp_path / "file", TWO_PARTS)
    between.script = [fault, hand_on, fault, fault, hand_on, hand_on, fault, hand_on]  # start, two parts, end
    faulty.put_file(path, "file")
    assert not between.script
    between.script = [fault]
    assert faulty.get_file("file", tmp_path / "got") == sha256(TWO_PARTS)
    between.script = [fault]
    assert [entry.name for entry in faulty.list()] == ["file"]
    between.script = [fault]
    faulty.remove("file")
    assert len(waits) >= 7
    assert not faulty.exists("file")


@pytest.mark.parametrize("code", ["RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "OperationAborted"])
def test_bytes_that_did_not_arrive_well_are_sent_again(
    faulty: Store, between: Proxy, waits: list[float], code: str
) -> None:
    between.script = [answer(400, code)]
    etag = faulty.put_bytes(SMALL, "a")
    assert faulty.get_bytes("a") == (SMALL, etag)
    assert waits


def test_an_end_that_fails_after_a_good_beginning_is_repeated(
    faulty: Store, between: Proxy, waits: list[float], tmp_path: Path
) -> None:
    between.script = [hand_on, hand_on, hand_on, answer(200, "InternalError")]
    faulty.put_file(written(tmp_path / "file", TWO_PARTS), "file")
    assert faulty.get_file("file", tmp_path / "got") == sha256(TWO_PARTS)


def test_an_end_whose_answer_was_lost_is_recognised(
    faulty: Store, between: Proxy, waits: list[float], tmp_path: Path
) -> None:
    gone = answer(404, "NoSuchUpload")
    path = written(tmp_path / "file", TWO_PARTS)
    between.script = [hand_on, hand_on, hand_on, gone, gone]
    with pytest.raises(UserError, match="NoSuchUpload"):
        faulty.put_file(path, "file")
    between.script = [hand_on, hand_on, hand_on, lose_answer, gone, gone]
    assert faulty.put_file(path, "file") == sha256(TWO_PARTS)


def test_the_server_says_how_long_to_wait(faulty: Store, between: Proxy, waits: list[float]) -> None:
    between.script = [answer(503, "SlowDown", Retry_After="7"), answer(429, Retry_After="7777"), tell(200, b"")]
    faulty.put_bytes(b"1", "a")
    assert waits == [7, 60]


def test_waits_grow_and_differ(faulty: Store, between: Proxy, waits: list[float]) -> None:
    for _ in range(2):
        between.script = [*[hang_up] * (ATTEMPTS - 1), tell(200, b"")]
        faulty.put_bytes(b"1", "a")
    first, second = waits[: len(waits) // 2], waits[len(waits) // 2 :]
    assert first != second
    for times in (first, second):
        shares = [wait / min(0.5 * 2**number, MAX_WAIT_SECONDS) for number, wait in enumerate(times)]
        assert all(0.5 <= share <= 1.5 for share in shares)


def test_a_download_goes_on_where_it_was_cut(faulty: Store, between: Proxy, waits: list[float], tmp_path: Path) -> None:
    faulty.put_file(written(tmp_path / "file", LARGE), "file")
    between.script = [truncate, truncate]
    assert faulty.get_file("file", tmp_path / "got") == sha256(LARGE)
    ranges = [headers.get("Range") for method, _, headers in between.asked if method == "GET"]
    assert ranges == [None, f"bytes={len(LARGE) // 2}-", f"bytes={len(LARGE) // 2 + (len(LARGE) + 1) // 4}-"]


def test_a_download_may_be_cut_often_as_long_as_it_gains(
    faulty: Store, between: Proxy, waits: list[float], tmp_path: Path
) -> None:
    faulty.put_bytes(SMALL, "file")
    between.script = [truncate] * (ATTEMPTS + 2)
    assert faulty.get_file("file", tmp_path / "got") == sha256(SMALL)


def test_a_server_that_serves_no_ranges_is_not_believed(
    faulty: Store, between: Proxy, waits: list[float], tmp_path: Path
) -> None:
    faulty.put_bytes(SMALL, "file")
    between.script = [truncate, tell(200, SMALL, "application/octet-stream")]
    with pytest.raises(UserError, match="came with 150,000 bytes, not 100,000"):
        faulty.get_file("file", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


def test_what_is_signed_for_one_host_is_not_sent_to_another(faulty: Store, between: Proxy) -> None:
    between.script = [answer(307, "TemporaryRedirect", Location=f"{between.url}/elsewhere")]
    with pytest.raises(UserError, match="TemporaryRedirect"):
        faulty.get_bytes("a")
    assert len(between.asked) == 1


def test_an_object_that_changes_between_two_halves_is_not_mixed(
    server: S3Server, uri: str, faulty: Store, between: Proxy, waits: list[float], tmp_path: Path
) -> None:
    faulty.put_bytes(SMALL, "file")
    store = open_store(uri, server.environment)
    between.script = [lambda handler: truncate(handler, lambda: store.put_bytes(SMALL[::-1], "file"))]
    with pytest.raises(UserError, match="was changed while it was read"):
        faulty.get_file("file", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [hang_up, answer(503, "SlowDown")], ids=["hang up", "503"])
def test_a_server_that_stays_away_is_given_up(
    faulty: Store, between: Proxy, waits: list[float], fault: Fault, tmp_path: Path
) -> None:
    for call in (
        lambda: faulty.put_bytes(b"1", "a"),
        lambda: faulty.put_file(written(tmp_path / "file", b"1"), "a"),
        lambda: faulty.get_bytes("a"),
        lambda: faulty.stat("a"),
        lambda: list(faulty.list()),
        lambda: faulty.remove("a"),
    ):
        between.script = [fault] * ATTEMPTS
        between.asked.clear()
        with pytest.raises(UserError, match=f"{between.url} .* {ATTEMPTS} times; check the address, or try again"):
            call()
        assert len(between.asked) == ATTEMPTS


def test_a_refusal_that_is_cut_is_asked_for_again(
    faulty: Store, between: Proxy, waits: list[float], tmp_path: Path
) -> None:
    between.script = [truncate, truncate]
    with pytest.raises(NoSuchObject):
        faulty.get_bytes("nothing")
    between.script = [truncate]
    with pytest.raises(NoSuchObject):
        faulty.get_file("nothing", tmp_path / "got")
    assert len(waits) == 3


def test_a_download_that_is_always_cut_is_given_up(
    faulty: Store, between: Proxy, waits: list[float], tmp_path: Path
) -> None:
    faulty.put_bytes(SMALL, "file")
    between.script = [cut_at_once] * ATTEMPTS
    with pytest.raises(UserError, match=f"was cut {ATTEMPTS} times"):
        faulty.get_file("file", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status, code", [(403, "AccessDenied"), (404, "NoSuchBucket"), (400, "InvalidArgument")])
def test_what_no_repetition_mends_is_not_repeated(
    faulty: Store, between: Proxy, waits: list[float], status: int, code: str
) -> None:
    between.script = [answer(status, code)]
    with pytest.raises(UserError, match=code):
        faulty.get_bytes("a")
    assert len(between.asked) == 1
    assert waits == []


def test_one_request_in_ten_may_fail(faulty: Store, between: Proxy, tmp_path: Path) -> None:
    between.rate = 0.1
    contents = {f"{size}": random.Random(size).randbytes(size) for size in (*range(0, 200_000, 1_000), len(LARGE))}

    def travel(name: str) -> None:
        assert faulty.put_file(written(tmp_path / name, contents[name]), name) == sha256(contents[name])
        assert faulty.get_file(name, tmp_path / f"{name}.got") == sha256(contents[name])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(travel, contents))
    assert {entry.name: entry.size for entry in faulty.list()} == {name: len(c) for name, c in contents.items()}


def test_a_server_that_is_killed_in_mid_upload_and_starts_again_loses_nothing(tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        store = open_store(f"s3://{BUCKET}/a", server.environment)
        content = random.Random(0).randbytes(8 * PART_BYTES)
        path = written(tmp_path / "file", content)
        with proxy(server.address) as between, ThreadPoolExecutor(1) as pool:
            slow = open_store(f"s3://{BUCKET}/a", server.environment | {"AWS_ENDPOINT_URL_S3": between.url})
            between.script = [delay] * 20
            sent = pool.submit(slow.put_file, path, "file")
            while len(between.asked) < 4:
                time.sleep(0.01)
            server.kill()
            server.start()
            assert sent.result() == sha256(content)
        assert store.get_file("file", tmp_path / "got") == sha256(content)


def one_line(uri: str, environment: dict[str, str], prefix: str = "") -> str:
    """What a user is told, by the first call that finds a mistake."""
    with pytest.raises(UserError) as told:
        open_store(uri, environment, prefix).get_bytes("a")
    text = str(told.value)
    assert "\n" not in text
    assert SECRET not in text
    return text


def test_variables_have_a_second_name_and_a_prefix(server: S3Server, uri: str) -> None:
    environment = {"S3_ENDPOINT": f" {server.url}/\n", "AWS_ACCESS_KEY_ID": f"{KEY}\n", "AWS_SECRET_ACCESS_KEY": SECRET}
    open_store(uri, environment).put_bytes(b"1", "a")
    foreign = {f"SOURCE_{name}": value for name, value in environment.items()} | {"AWS_ACCESS_KEY_ID": "another"}
    assert open_store(uri, foreign, "SOURCE_").get_bytes("a")[0] == b"1"
    assert "SOURCE_AWS_ACCESS_KEY_ID" in one_line(uri, foreign | {"SOURCE_AWS_ACCESS_KEY_ID": "no-key"}, "SOURCE_")


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"AWS_ACCESS_KEY_ID": "no-key"}, "the access key is not known; check AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key does not belong to the access key; check"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no credentials; set AWS_ACCESS_KEY_ID and"),
    ],
)
def test_wrong_keys_are_told(server: S3Server, uri: str, changed: dict[str, str], told: str) -> None:
    assert told in one_line(uri, {**server.environment, **changed})


def test_a_missing_bucket_is_told_and_not_made(server: S3Server) -> None:
    store = open_store("s3://no-such-bucket/a", server.environment)
    for call in (
        lambda: store.get_bytes("a"),
        lambda: store.put_bytes(b"1", "a"),
        lambda: list(store.list()),
    ):
        with pytest.raises(UserError, match=r"s3://no-such-bucket/a.*: there is no such bucket; create it"):
            call()
    assert not server.client.bucket_exists("no-such-bucket")


def test_a_reader_may_not_write(server: S3Server, store: Store, uri: str) -> None:
    store.put_bytes(b"1", "a")
    keys = {"AWS_ACCESS_KEY_ID": READER_KEY, "AWS_SECRET_ACCESS_KEY": READER_SECRET}
    reader = open_store(uri, {**server.environment, **keys})
    assert reader.get_bytes("a")[0] == b"1"
    for call in (lambda: reader.put_bytes(b"2", "a"), lambda: reader.remove("a")):
        with pytest.raises(
            UserError, match="access is denied; allow these credentials to list the bucket, and read, write"
        ):
            call()
    assert store.get_bytes("a")[0] == b"1"


def test_a_wrong_clock_is_told(server: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minio.api.time, "utcnow", lambda: datetime.now(UTC) - timedelta(hours=1))
    assert "this machine's clock is wrong; set it" in one_line(uri, server.environment)


@pytest.mark.parametrize("code", ["AuthorizationHeaderMalformed", "PermanentRedirect"])
def test_a_wrong_region_is_told(faulty: Store, between: Proxy, code: str) -> None:
    for call in (lambda: faulty.get_bytes("a"), lambda: faulty.stat("a")):
        between.script = [answer(400, code)] * 2
        with pytest.raises(UserError, match="the bucket is in another region; set AWS_REGION to it"):
            call()
        between.script = []


def test_expired_credentials_are_told_by_every_call(faulty: Store, between: Proxy) -> None:
    for call in (lambda: faulty.get_bytes("a"), lambda: faulty.stat("a"), lambda: faulty.put_bytes(b"1", "a")):
        between.script = [answer(403, "ExpiredToken")] * 2
        with pytest.raises(
            UserError, match="the credentials have expired; set AWS_SESSION_TOKEN and both keys to new values"
        ):
            call()
        between.script = []


def test_tls_and_plain_http_are_told_apart(server: S3Server, uri: str) -> None:
    plain = server.tls_url.replace("https", "http")
    assert "the server expects TLS; use https:// in AWS_ENDPOINT_URL_S3" in one_line(
        uri, {**server.environment, "AWS_ENDPOINT_URL_S3": plain}
    )
    tls = server.url.replace("http", "https")
    told = one_line(uri, {**server.environment, "AWS_ENDPOINT_URL_S3": tls})
    assert f"{tls} does not speak TLS; use http:// instead of https://" in told


def test_a_certificate_of_ones_own_is_trusted_by_name(server: S3Server, uri: str, tmp_path: Path) -> None:
    environment = {**server.environment, "AWS_ENDPOINT_URL_S3": server.tls_url}
    assert "not trusted (self-signed certificate); name its authority in AWS_CA_BUNDLE" in one_line(uri, environment)
    store = open_store(uri, {**environment, "AWS_CA_BUNDLE": str(server.certificate)})
    store.put_file(written(tmp_path / "file", LARGE), "file")
    assert store.get_file("file", tmp_path / "got") == sha256(LARGE)
    assert "is not a file; give the file of the trusted certificate authorities" in one_line(
        uri, {**environment, "AWS_CA_BUNDLE": str(tmp_path / "none")}
    )


def test_patience_is_the_callers(faulty: Store, server: S3Server, between: Proxy, waits: list[float]) -> None:
    between.script = [hang_up] * 2
    store = open_store(faulty.uri(), {**server.environment, "AWS_ENDPOINT_URL_S3": between.url}, attempts=2)
    with pytest.raises(UserError, match="broke the connection 2 times"):
        store.exists("a")


def test_a_server_that_is_not_there_is_told(waits: list[float], uri: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        told = one_line(uri, {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": url})
    assert told == f"{url} could not be reached {ATTEMPTS} times; check the address, or try again later"
    assert len(waits) == ATTEMPTS - 1


def test_a_web_server_that_is_no_s3_is_told(uri: str) -> None:
    with proxy("") as web:
        web.script = [tell(404, b"<html>nothing here</html>", "text/html")]
        told = one_line(uri, {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": web.url})
    assert "the server does not speak S3" in told and "check the address in AWS_ENDPOINT_URL_S3" in told


def no_names(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    """No host is known; those asked for are listed."""

    def getaddrinfo(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_on_aws_the_bucket_is_part_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    no_names(monkeypatch, asked)
    told = one_line("s3://bucket/a", {**ENVIRONMENT, "AWS_REGION": "eu-west-1"})
    assert told == "https://bucket.s3.eu-west-1.amazonaws.com is not known; check the address"
    assert asked == ["bucket.s3.eu-west-1.amazonaws.com"]


def test_a_session_token_is_sent(server: S3Server, between: Proxy, uri: str) -> None:
    environment = {**server.environment, "AWS_ENDPOINT_URL_S3": between.url, "AWS_SESSION_TOKEN": "a-token"}
    with pytest.raises(UserError):  # SeaweedFS gave out no such token
        open_store(uri, environment).get_bytes("a")
    assert {name.lower(): value for name, value in between.asked[0][2].items()}["x-amz-security-token"] == "a-token"


STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken></SessionToken><Expiration>{until:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def test_a_web_identity_stands_for_keys_and_is_read_anew(
    server: S3Server, uri: str, tmp_path: Path, waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    token = written(tmp_path / "token", b"token-1\n")
    soon = STS.format(key=KEY, secret=SECRET, until=datetime.now(UTC) + timedelta(seconds=5)).encode()
    with proxy("") as sts:
        sts.script = [hang_up, tell(200, soon), tell(200, soon), tell(403, b"<Error/>")]
        environment = {
            "AWS_ENDPOINT_URL_S3": server.url,
            "AWS_ENDPOINT_URL_STS": sts.url,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/a",
        }
        store = open_store(uri, environment)
        store.put_bytes(b"1", "a")
        told = capsys.readouterr().out
        assert "retrying in" in told and "token-1" not in told
        token.write_bytes(b"token-2")
        assert store.get_bytes("a")[0] == b"1"
        with pytest.raises(
            UserError, match=f"AWS_WEB_IDENTITY_TOKEN_FILE={token} gave no S3 credentials; check the file, AWS_ROLE_ARN"
        ) as told:
            store.get_bytes("a")
    assert "token-2" not in str(told.value)


def test_a_container_may_be_given_credentials(server: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    until = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    given = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "", "Expiration": until}
    with proxy("") as agent:
        agent.script = [tell(200, json.dumps(given).encode(), "application/json")]
        variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.url, "AWS_ENDPOINT_URL_S3": server.url}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert open_store(uri, os.environ).stat("a") is None


def test_a_profile_may_hold_the_keys(server: S3Server, uri: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    variables = {"AWS_ENDPOINT_URL_S3": server.url, "AWS_PROFILE": "mine", "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert "AWS_PROFILE=mine gave no S3 credentials" in one_line(uri, variables)
    file.write_text(f"[mine]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    assert open_store(uri, variables).stat("a") is None
    file.write_text(f"[mine\n{SECRET}")
    assert "AWS_PROFILE=mine gave no S3 credentials" in one_line(uri, variables)
