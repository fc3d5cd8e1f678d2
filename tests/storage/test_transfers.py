"""Files and small objects travel whole, verified and in little memory."""

import errno
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from components.shared.core.errors import CorruptDataError, UserError
from components.shared.storage.client import PART_BYTES, Store
from components.shared.storage.errors import NoSuchObject, disk_error
from tests.sample_files import sha256
from tests.servers.s3_server import BUCKET, Handler, Proxy, S3Server, delay, forward
from tests.storage.samples import LARGE, SMALL, write

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # each test needs the real server


@pytest.mark.parametrize("content", [b"", b"x", SMALL, LARGE], ids=["empty", "byte", "small", "parts"])
def test_a_file_comes_back_as_it_was_sent(store: Store, tmp_path: Path, content: bytes) -> None:
    assert store.put_file(write(tmp_path / "sent", content), "a/file.bin") == sha256(content)
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
def test_a_name_may_be_any_relative_path(store: Store, name: str) -> None:
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
        lambda: store.put_file(write(tmp_path / "file", b"1"), name),
        lambda: store.get_file(name, tmp_path / "got"),
        lambda: store.stat(name),
        lambda: store.remove(name),
    ):
        with pytest.raises(UserError, match="is not a valid object name"):
            call()
    assert not (tmp_path / "got").exists()


def test_a_missing_object_is_reported(store: Store, tmp_path: Path) -> None:
    assert store.stat("none") is None
    assert not store.exists("none")
    with pytest.raises(NoSuchObject, match=re.escape(f"{store.uri('none')} does not exist")):
        store.get_bytes("none")
    with pytest.raises(NoSuchObject):
        store.get_file("none", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_get_bytes_refuses_large_objects(store: Store, tmp_path: Path) -> None:
    store.put_bytes(SMALL, "file")
    with pytest.raises(UserError, match="has 100,000 bytes, and 99,999 are allowed"):
        store.get_bytes("file", limit=99_999)


@pytest.mark.parametrize("call", ["put_file(sys.argv[1], 'file')", "get_file('file', sys.argv[1] + '.got')"])
def test_a_large_file_needs_little_memory(server: S3Server, store: Store, tmp_path: Path, uri: str, call: str) -> None:
    path = write(tmp_path / "file", b"")
    os.truncate(path, 128 * 2**20)
    store.put_file(path, "file")
    code = "import os, resource, sys; from components.shared.storage.client import open_store; "
    code += "store = open_store(sys.argv[2], os.environ); store.exists('file'); "
    code += "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak(); "
    code += f"store.{call}; print('KiB more:', peak() - before)"
    # A shell starts the process, for a peak includes the memory of the process that forked.
    command = ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", code, str(path), uri]
    output = subprocess.run(
        command, cwd=ROOT, env=server.environment, capture_output=True, text=True, check=True, timeout=300
    ).stdout
    assert int(output.rpartition("KiB more:")[2]) < 64 * 1024


def test_parts_are_sent_in_parallel(proxied: Store, network: Proxy, tmp_path: Path) -> None:
    network.script = [delay] * 4
    proxied.put_file(write(tmp_path / "file", LARGE), "file")
    assert network.most_busy >= 2
    assert [method for method, _, _ in network.asked].count("PUT") == 3


def test_a_damaged_object_is_refused(server: S3Server, store: Store, uri: str, tmp_path: Path) -> None:
    key = urlsplit(uri).path[1:] + "/file"
    damaged = bytes([SMALL[0] ^ 1]) + SMALL[1:]
    server.client.put_object(BUCKET, key, BytesIO(damaged), len(damaged), metadata={"sha256": sha256(SMALL)})
    for call in (lambda: store.get_file("file", tmp_path / "got"), lambda: store.get_bytes("file")):
        with pytest.raises(CorruptDataError, match=f"its SHA-256 is {sha256(damaged)}, not {sha256(SMALL)}; upload it"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_an_object_with_another_digest_is_refused(store: Store, tmp_path: Path) -> None:
    store.put_file(write(tmp_path / "sent", SMALL), "file")
    with pytest.raises(CorruptDataError, match="is damaged: its SHA-256 is"):
        store.get_file("file", tmp_path / "got", sha256(b"another"))
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("later", [LARGE[:-1] + b"!", LARGE[:PART_BYTES]], ids=["other", "shorter"])
def test_a_file_that_changes_during_the_upload_is_refused(
    proxied: Store, network: Proxy, tmp_path: Path, later: bytes
) -> None:
    path = write(tmp_path / "file", LARGE)

    def change(handler: Handler) -> None:
        path.write_bytes(later)
        forward(handler)

    network.script = [change]
    with pytest.raises(UserError, match="is damaged, or was changed during the upload; create the file again"):
        proxied.put_file(path, "file")
    assert not proxied.exists("file")


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "parts"])
def test_a_file_with_another_digest_is_not_sent(store: Store, tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "file", content)
    with pytest.raises(UserError, match="is damaged, or was changed during the upload"):
        store.put_file(path, "file", sha256(b"another"))
    assert not store.exists("file")
    assert store.put_file(path, "file", sha256(content)) == sha256(content)


def test_a_download_larger_than_the_disk_does_not_start(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes(SMALL, "file")
    monkeypatch.setattr("components.shared.storage.client.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match="has 100,000 bytes, and 10 are free"):
        store.get_file("file", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


def test_a_file_above_the_size_limit_is_reported(store: Store, tmp_path: Path) -> None:
    store.put_file(write(tmp_path / "file", LARGE), "file")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(LARGE) // 2, old[1]))
    try:
        expected = f"/file does not fit at {tmp_path}/got .*; raise the limit on the size of a file"
        with pytest.raises(UserError, match=expected):
            store.get_file("file", tmp_path / "got")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "number, remedy",
    [
        (errno.ENOSPC, "free some space there"),
        (errno.EDQUOT, "free some space there"),
        (errno.EFBIG, "raise the limit on the size of a file (ulimit -f)"),
    ],
)
def test_each_disk_error_has_its_own_remedy(number: int, remedy: str) -> None:
    error = disk_error(OSError(number, "no room"), "s3://bucket/a", "/b")
    assert str(error) == f"s3://bucket/a does not fit at /b (no room); {remedy}"
    assert disk_error(OSError(errno.EACCES, "denied"), "s3://bucket/a", "/b") is None


FILL = """
import os, sys
from pathlib import Path
from tests.servers.s3_server import BUCKET, s3_server
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.storage.client import open_store
room, path = Path(sys.argv[1]), Path(sys.argv[2])
with s3_server(room) as server:
    store = open_store(f"s3://{BUCKET}/a", server.environment, attempts=2)
    store.put_file(path, "first")
    try:
        store.put_file(path, "second")
    except UserError as error:
        print("reported:", error)
    print("left:", [entry.name for entry in store.list()], list(store.unfinished_uploads()), path.exists())
"""


def test_a_full_server_is_reported_and_stores_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    path = write(tmp_path / "file", random.Random(0).randbytes(60 * 2**20))  # SeaweedFS compresses zeros
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs -o size=100m none "$0" && exec "$@"']
    mount.append(str(tmp_path / "room"))
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a small disk")
    command = [*mount, sys.executable, "-c", FILL, str(tmp_path / "room"), str(path)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout
    assert re.search("reported: .* answered 500 Internal Server Error 2 times; check the address, or try again", output)
    assert "left: ['first'] [] True" in output
