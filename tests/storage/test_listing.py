"""Objects and unfinished uploads are listed below the prefix, page by page."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from components.shared.storage.client import Store, open_store
from tests.servers.s3_server import BUCKET, Fault, Handler, Proxy, S3Server, answer, forward, proxy, respond
from tests.storage.samples import ENVIRONMENT, LARGE, write

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # each test needs the real server


def test_only_objects_below_the_prefix_are_listed(server: S3Server, store: Store, uri: str) -> None:
    for name in ("b", "a/2", "a/1", "ab/3"):
        store.put_bytes(b"12", name)
    open_store(f"{uri}-neighbour", server.environment).put_bytes(b"1", "a/4")
    server.client.put_object(BUCKET, urlsplit(uri).path[1:] + "/a/", BytesIO(), 0)  # as consoles create folders
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


def test_a_listing_may_have_many_pages(store: Store) -> None:
    names = [f"{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put_bytes(b"", name), names))
    assert [entry.name for entry in store.list()] == names
    store.remove(*names, "never there")
    assert list(store.list()) == []


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_long_listing_needs_constant_memory(uri: str) -> None:
    """The pages are generated here: writing 100,000 objects would take minutes."""
    pages = 100

    def page(handler: Handler) -> None:
        after = int(parse_qs(urlsplit(handler.path).query).get("continuation-token", ["0"])[0])
        names = [f"{urlsplit(uri).path[1:]}/{after * 1000 + number:06}" for number in range(1000)]
        objects = "".join(f"<Contents><Key>{name}</Key><Size>1</Size><ETag>e</ETag></Contents>" for name in names)
        rest = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{after + 1}</NextContinuationToken>"
        body = f"<ListBucketResult><Name>{BUCKET}</Name>{objects}{rest * (after < pages - 1)}</ListBucketResult>"
        respond(200, body.encode())(handler)

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


SEND = """
import os, sys
from components.shared.storage.client import open_store
open_store(sys.argv[1], os.environ).put_file(sys.argv[2], "sent/file")
"""


def test_the_upload_of_a_killed_process_is_found_and_deleted(
    server: S3Server, store: Store, proxied: Store, network: Proxy, uri: str, tmp_path: Path
) -> None:
    path, begun = write(tmp_path / "file", LARGE), datetime.now(UTC)
    environment = {**os.environ, **server.environment, "AWS_ENDPOINT_URL_S3": network.url}
    network.script = [forward, forward, lambda handler: time.sleep(60)]
    with subprocess.Popen([sys.executable, "-c", SEND, uri, str(path)], cwd=ROOT, env=environment) as sender:
        while network.script:
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
    network.script = [answer(404, "NoSuchUpload")]  # as AWS answers
    proxied.abort(upload)


def test_unfinished_uploads_may_have_many_pages(uri: str) -> None:
    folder = urlsplit(uri).path[1:]
    upload = "<Upload><Key>{}/{}</Key><UploadId>{}</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"

    def page(name: str, upload_id: str, more: str) -> Fault:
        body = f"<IsTruncated>{more}</IsTruncated>{upload.format(folder, name, upload_id)}"
        return respond(200, f"<ListMultipartUploadsResult>{body}</ListMultipartUploadsResult>".encode())

    with proxy("") as web:
        web.script = [page("a", "1", "true"), page("a", "2", "true"), page("b", "3", "false")]
        found = list(open_store(uri, {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": web.url}).unfinished_uploads())
        queries = [parse_qs(urlsplit(path).query) for _, path, _ in web.asked]
    assert [(upload.name, upload.id) for upload in found] == [("a", "1"), ("a", "2"), ("b", "3")]
    markers = [(query.get("key-marker"), query.get("upload-id-marker")) for query in queries]
    assert markers == [(None, None), ([f"{folder}/a"], ["1"]), ([f"{folder}/a"], ["2"])]
