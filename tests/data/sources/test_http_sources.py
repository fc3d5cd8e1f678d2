"""Archives behind addresses as people copy them: links that ask back, lead on, never end, or do not fit on the disk."""

import re
import shutil
import threading
from collections.abc import Callable
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from components.shared.core.errors import TransientError, UserError
from components.shared.data.layout.reading import Reading
from components.shared.data.sources import http_transfer
from components.shared.data.sources.http import UrlSource, fetch_url
from components.shared.data.sources.redirects import Way
from components.shared.data.sources.schemes import RawDescription
from tests.sample_files import picture, sha256, tar_bytes
from tests.servers.web_server import WebServer, answer

PETS = tar_bytes({f"{kind}/{number}.png": picture(number) for kind in ("cat", "dog") for number in range(3)})
PAGE = b"<!DOCTYPE html><html><head><title>Virus scan warning</title></head><body>too large to scan</body></html>"
TYPED = "https://data.example.org/a.zip"


pytestmark = pytest.mark.usefixtures("cache", "waits")


def fetched(url: str, folder: Path) -> RawDescription:
    folder.mkdir()
    return UrlSource(url).fetch(folder, Reading())


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/pets.tar.gz?download=1", {}, "pets.tar.gz"),
        ("/uc?id=1", {"Content_Disposition": 'attachment; filename="pets.tar.gz"'}, "pets.tar.gz"),
        ("/uc?id=2", {"Content_Disposition": "attachment; filename*=UTF-8''%E7%8C%AB.tar.gz"}, "猫.tar.gz"),
        ("/uc?id=3", {"Content_Disposition": 'attachment; filename="../../x\\\\pets\x1b.tar.gz"'}, "pets.tar.gz"),
        ("/record/1/content", {}, "content"),
        ("/", {}, ""),
    ],
)
def test_an_archive_is_known_by_its_content(
    web_server: WebServer, tmp_path: Path, path: str, headers: dict[str, str], name: str
) -> None:
    web_server.script = [answer(200, PETS, **headers), answer(200, PETS, **headers)]
    url = f"{web_server.url}{path}"
    for folder in (tmp_path / "raw", tmp_path / "again"):
        described = fetched(url, folder)
        assert (described["name"], described["classes"], described["counts"]) == (
            name or url,
            ["cat", "dog"],
            {"all": 6},
        )
        assert described["files"] == ["download.tar.gz" if "pets.tar.gz?" in path else "download"]


def test_a_cached_archive_keeps_the_name_that_the_server_gave(web_server: WebServer, tmp_path: Path) -> None:
    web_server.files["/pets.tar.gz"] = PETS
    web_server.script = [answer(302, Location="/pets.tar.gz")]
    url = f"{web_server.url}/latest#sha256={sha256(PETS)}"
    assert fetched(url, tmp_path / "raw")["name"] == fetched(url, tmp_path / "again")["name"] == "pets.tar.gz"
    assert len(web_server.asked) == 2


@pytest.mark.parametrize("use", [fetch_url, lambda url: UrlSource(url).version()], ids=["download", "resolve"])
def test_a_confirmation_page_is_refused_with_its_title(
    web_server: WebServer, cache: Path, use: Callable[[str], object]
) -> None:
    web_server.script = [answer(200, PAGE, Content_Type="text/html; charset=utf-8", ETag='"1"')]
    said = r"/pets\.zip is a web page, not an archive: it begins with '<!DOCTYPE html>.*'Virus scan warning'; open it"
    with pytest.raises(UserError, match=said):
        use(f"{web_server.url}/pets.zip")
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["pets.7z", "pets.rar", "pets.png", "labels.json"])
def test_a_name_that_is_no_archives_is_refused_unasked(web_server: WebServer, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} is a (7z|RAR) archive|ends in '{name}', which is no archive; give"):
        UrlSource(f"{web_server.url}/{name}")
    assert not web_server.asked


class Hosts(requests.Session):
    """Hosts that redirect to each other, the last of which has the file."""

    def __init__(self, way: Way, hops: dict[str, str]) -> None:
        super().__init__()
        self.way, self.urls, self.addresses = way, [*hops], hops

    def get(self, url: str | bytes, **_: Any) -> requests.Response:
        self.way.check(urlsplit(str(url)).netloc, ip_address(self.addresses[str(url)]))
        response, rest = requests.Response(), self.urls[self.urls.index(str(url)) + 1 :]
        response.url, response.status_code, response.raw = str(url), 302 if rest else 200, BytesIO()
        response.headers["Location"] = rest[0] if rest else ""
        return response


def test_a_public_host_on_the_way_leads_to_no_private_one() -> None:
    public, nas, typed = {"https://cdn.example/b": "151.101.1.69"}, "10.0.0.5", "https://nas.corp/a"
    for back in ("https://nas.corp/c", "https://other.corp/c"):
        way = Way(typed)
        with pytest.raises(UserError, match=f"^{typed} leads to .*.corp, at {nas}, a private address; give"):
            way.follow(Hosts(way, {typed: nas, **public, back: nas}), {}, (1, 1))
        for _ in range(2):  # a cut download starts again where the user began
            assert way.follow(Hosts(way, {typed: nas, **public}), {}, (1, 1)).status_code == 200


@pytest.mark.parametrize(
    ("way", "what"),
    [
        (["93.184.216.34", "10.0.0.5"], "leads to hop at 10.0.0.5, a private address"),
        (["93.184.216.34", "100.100.100.200"], "leads to hop at 100.100.100.200, a private address"),
        (["93.184.216.34", "fd00:ec2::254"], "leads to hop at fd00:ec2::254, a private address"),
        (["10.0.0.4", "169.254.169.254"], "leads to hop at 169.254.169.254, an address of a local link"),
        (["10.0.0.4", "127.0.0.1"], "leads to hop at 127.0.0.1, an address of this machine"),
        (["10.0.0.4", "10.0.0.5"], ""),
        (["93.184.216.34", "151.101.1.69"], ""),
    ],
)
def test_where_redirects_may_lead_depends_on_the_start(way: list[str], what: str) -> None:
    start = Way(TYPED)
    hosts = Hosts(start, {TYPED: way[0], "https://hop/b": way[1]})
    if not what:
        assert start.follow(hosts, {}, (1, 1)).status_code == 200
        return
    with pytest.raises(UserError, match=what.replace(" at", ", at")):
        start.follow(hosts, {}, (1, 1))


@pytest.mark.parametrize("tag", ["x" * 5000, "a\x9bb"])
def test_a_long_or_strange_etag_is_pinned_as_a_digest(web_server: WebServer, tag: str) -> None:
    web_server.script = [answer(200, PETS, ETag=tag), answer(200, PETS, ETag=tag)]
    first, second = (UrlSource(f"{web_server.url}/a.zip").version() for _ in range(2))
    assert first == second and re.fullmatch("ETag: sha256:[0-9a-f]{64}", first)


def drip(handler: Any) -> None:
    """Send a byte every now and then, from where the client wants it, until it hangs up; call it a web page."""
    start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Type", "text/html")
    handler.send_header("Content-Range", f"bytes {start}-999999/1000000")
    handler.send_header("ETag", '"1"')
    handler.end_headers()
    while not threading.Event().wait(0.02):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return


@pytest.mark.parametrize("use", [fetch_url, lambda url: UrlSource(url).version()], ids=["download", "resolve"])
def test_a_body_of_a_few_bytes_a_second_is_given_up(
    web_server: WebServer, monkeypatch: pytest.MonkeyPatch, use: Callable[[str], object]
) -> None:
    monkeypatch.setattr(http_transfer, "SLOW_SECONDS", 0.1)
    web_server.script = [drip] * http_transfer.ATTEMPTS
    with pytest.raises(TransientError, match=rf"sent \d+ bytes in 0\.1 s {http_transfer.ATTEMPTS} times; try again"):
        use(f"{web_server.url}/a.zip")


def flood(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        try:
            handler.wfile.write(bytes(2**20))
        except OSError:
            return


def test_an_endless_body_is_ended_before_the_disk_is_full(
    web_server: WebServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_transfer, "SPACE_STEP", 2**22)
    free = iter([2**30, 2**23, 2**21])
    usage = shutil.disk_usage(cache.parents[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=next(free)))
    web_server.script = [flood]
    with pytest.raises(UserError, match=rf"goes on, and {cache}\S+ has 2,097,152 bytes free; free some space there"):
        fetch_url(f"{web_server.url}/a.zip")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_file_that_does_not_fit_is_refused_at_once(web_server: WebServer, cache: Path) -> None:
    web_server.script = [lambda handler: handler.reply(200, b"x", 2**60)]
    with pytest.raises(UserError, match=rf"has 1,152,921,504,606,846,976 bytes to come, and {cache}\S+ has .* free"):
        fetch_url(f"{web_server.url}/a.zip")


def test_a_full_disk_is_named(web_server: WebServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    web_server.files["/a.zip"] = PETS
    monkeypatch.setattr("components.shared.data.sources.http_transfer.Transfer._write", fail)
    with pytest.raises(OSError, match=rf"No space left on device: '{cache}"):
        fetch_url(f"{web_server.url}/a.zip")
