"""An archive of which pods read the pictures by range: prepared, it is what one pod prepares of its copy."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.shared.core.errors import TransientError, UserError
from components.shared.data.dataset import SPLITS, Dataset
from components.shared.storage.client import Store
from tests.bigdata.parts import SIZE, listed, prepare_part, prepared, prepared_alone
from tests.servers.web_server import WebServer, etag, whole


def pictures() -> Iterator[tuple[str, bytes]]:
    """Yield forty pictures of two classes, some of them copies, one broken and one without a suffix, and a note."""
    random = np.random.default_rng(0)
    for number, name in enumerate(["cat", "dög"]):
        for picture in range(20):
            shape = (SIZE, SIZE, 3) if number else (SIZE, SIZE)
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(file, "PNG")
            yield f"pets/{name}/{picture:02}" + ".png" * (picture != 7), file.getvalue()
            if picture % 5 == 0:
                yield f"pets/{name}/{picture}-copy.png", file.getvalue()
    yield "pets/cat/broken.png", b"\x89PNG"
    yield "pets/notes.txt", b"of two kinds"


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        methods = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2)
        for number, (name, content) in enumerate(pictures()):
            out.writestr(name, content, methods[number % 3])
    return file.getvalue()


def tarred() -> bytes:
    """Return a tar that has a picture a second time, by a link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as out:
        for name, content in pictures():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("pets/cat/linked.png")
        link.type, link.linkname = tarfile.SYMTYPE, "03.png"
        out.addfile(link)
    return file.getvalue()


PACKED = {"zip": zipped, "tar": tarred}


def assert_same(many: Dataset, alone: Dataset) -> None:
    assert many.is_remote and not alone.is_remote
    assert many.digest == alone.digest
    assert many.document.splits == alone.document.splits
    for field in ("name", "mean", "std", "duplicates", "bad_images", "samples_sha256", "index_sha256", "left_out"):
        assert getattr(many.document, field) == getattr(alone.document, field), field
    for split in SPLITS:
        for found, expected in zip(many.load(split), alone.load(split), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("place", ["s3", "http", "file"])
def test_an_archive_is_prepared_by_range(
    place: str, kind: str, store: Store, uri: str, web_server: WebServer, tmp_path: Path
) -> None:
    path = tmp_path / f"pets.{kind}"
    path.write_bytes(PACKED[kind]())
    source = path.as_uri()
    if place == "s3":
        store.put_file(path, f"sources/{path.name}")
        source = store.uri(f"sources/{path.name}")
    elif place == "http":
        web_server.files[f"/{path.name}"] = path.read_bytes()
        source = f"{web_server.url}/{path.name}"
    listing = listed(source, uri, tmp_path / "listing")
    assert_same(prepared(listing, [1, 0, 2], tmp_path / "many"), prepared_alone(source, tmp_path))


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("place", ["s3", "http", "file"])
def test_an_archive_that_changed_is_reported(
    place: str, kind: str, store: Store, uri: str, web_server: WebServer, tmp_path: Path
) -> None:
    path = tmp_path / f"pets.{kind}"
    sources = {"s3": store.uri(path.name), "http": f"{web_server.url}/{path.name}", "file": path.as_uri()}

    def put(content: bytes) -> None:
        path.write_bytes(content)
        store.put_file(path, path.name)
        web_server.files[f"/{path.name}"] = content

    put(PACKED[kind]())
    listing = listed(sources[place], uri, tmp_path / "listing")
    error, said = (UserError, "has changed since") if place == "file" else (TransientError, "changed while it was read")
    for now in (PACKED[kind]() + b"\0", b"\0"):
        put(now)
        with pytest.raises(error, match=rf"pets\.{kind} {said}.*; run it again"):
            prepare_part(listing, 0, 1)
    if place == "s3":
        store.remove(path.name)
        with pytest.raises(error, match=rf"pets\.{kind} {said}.*; run it again"):
            prepare_part(listing, 0, 1)


@pytest.mark.parametrize(
    ("end", "said"), [("", "zip at a server that sends no parts"), ("?key=1", "has a query"), ("#", "no digest")]
)
def test_an_address_that_is_not_read_in_parts_is_refused(
    end: str, said: str, web_server: WebServer, tmp_path: Path
) -> None:
    web_server.files[f"/pets.zip{end.strip('#')}"] = zipped()
    source = f"{web_server.url}/pets.zip{end}" + f"sha256={'0' * 64}" * (end == "#")
    web_server.script = [whole] * 3
    with pytest.raises(UserError, match=said):
        listed(source, "", tmp_path / "listing")


def test_a_part_that_is_cut_is_asked_for_again(
    web_server: WebServer, uri: str, tmp_path: Path, waits: list[float]
) -> None:
    web_server.files["/pets.tar"] = tarred()
    listing = listed(f"{web_server.url}/pets.tar", uri, tmp_path / "listing")

    def cut(handler: Any) -> None:
        handler.body = lambda: tarred()
        first = int(handler.headers["Range"].removeprefix("bytes=").partition("-")[0])
        body = handler.body()
        end = f"bytes {first}-{len(body) - 1}/{len(body)}"
        handler.reply(206, body[first : first + 300], 500, ETag=etag(body), Content_Range=end)

    web_server.script = [cut, cut]
    prepare_part(listing, 0, 1)
    assert len(waits) == 2
