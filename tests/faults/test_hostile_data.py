"""Hostile archives and pictures, from a path and from an address, through the steps download and preprocess."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from components.download import download
from components.preprocess import preprocess
from components.shared.core.errors import UserError
from components.shared.data.dataset import open_dataset
from components.shared.parameters.preparation import PreprocessRecipe
from tests.data.archives.hostile import REFUSED
from tests.data.versions import READING, version_of
from tests.faults.record import note
from tests.fuzz.confinement import confined
from tests.parameters.texts import recipe_text
from tests.sample_files import packed, picture, zip_bytes
from tests.servers.web_server import WebServer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache")]

PETS = {f"{kind}/{number}.png": picture(number + 9 * (kind == "dog")) for kind in ("cat", "dog") for number in range(9)}
PLAIN = [f"cat/{number}.png" for number in range(9)]
SETTINGS = {"image_size": 8, "val_fraction": 0.2, "test_fraction": 0.2, "seed": 0, "store": "", "handover_mib": 0}
BEYOND: dict[str, tuple[str, Callable[[], bytes], str]] = {  # what only the steps look at
    "root": (".zip", lambda: zip_bytes({b"/etc/cat/1.png": picture(1)}), "leads outside the archive"),
    "drive": (".zip", lambda: zip_bytes({rb"C:\cat\1.png": picture(1)}), "leads outside the archive"),
    "parent-by-backslash": (".zip", lambda: zip_bytes({rb"cat\..\..\1.png": picture(1)}), "leads outside the archive"),
    "no-pictures": (".zip", lambda: zip_bytes({b"cat/1.txt": b"x", b"dog/1.txt": b"x"}), "holds no pictures"),
    "one-class": (".zip", lambda: zip_bytes({b"cat/1.png": picture(1)}), "1 class|one class|class"),
    "nested-broken": (".zip", lambda: zip_bytes({b"x/cat.zip": b"PK\3\4" + bytes(99)}), "cat.zip cannot be read as an"),
    "nested-twice": (
        ".zip",
        lambda: zip_bytes({b"a.zip": zip_bytes({b"b.zip": zip_bytes({b"cat/1.png": picture(1)})})}),
        "holds no pictures",
    ),
}
ARCHIVES = REFUSED | BEYOND


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, content: bytes = b"", before: bytes = b"") -> bytes:
    """Return a grey PNG that says its size, with any content and further chunks."""
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", content or zlib.compress(bytes(2**20), 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + data + chunk(b"IEND", b"")


def saved(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(picture(77))).resize((64, 64)).save(file, form, **options)
    return file.getvalue()


FRAMES = [Image.new("L", (64, 64), shade) for shade in range(99)]
PICTURES: dict[str, Callable[[], bytes]] = {
    "empty.png": bytes,
    "text.png": lambda: b"<html>not a picture</html>",
    "cut.png": lambda: picture(1)[:40],
    "cut.jpg": lambda: saved("JPEG")[:300],
    "billions.png": lambda: png_of(2**31 - 1, 2**31 - 1),
    "wide.png": lambda: png_of(2**31 - 1, 1),
    "bomb.png": lambda: png_of(60_000, 60_000),
    "no-pixels.png": lambda: png_of(0, 8),
    "bad-crc.png": lambda: picture(1)[:-20] + b"\0\0\0\0" + picture(1)[-16:],
    "script.svg.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "elf.jpg": lambda: Path("/proc/self/exe").read_bytes()[:5000],
    "far.tif": lambda: b"II*\0\xff\xff\xff\x7f" + bytes(64),
    "loop.tif": lambda: b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0",
    "postscript.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "frames.gif": lambda: saved("GIF", save_all=True, append_images=FRAMES)[:-500],
}


def prepare(raw: Path, dataset: Path, allowed: int) -> None:
    recipe = recipe_text(PreprocessRecipe, **SETTINGS, max_bad_images=allowed)
    preprocess(raw=str(raw), recipe=recipe, prepared_by="", dataset=str(dataset))


@pytest.mark.parametrize("by", ["path", "address"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_ends_download_in_one_line(
    tmp_path: Path, cache: Path, web_server: WebServer, monkeypatch: pytest.MonkeyPatch, name: str, by: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the watch takes names that are relative to an open folder for such of this one
    suffix, content, reason = ARCHIVES[name]
    given = tmp_path / f"given{suffix}"
    given.write_bytes(content())
    web_server.files[f"/{given.name}"] = given.read_bytes()
    data = str(given) if by == "path" else f"{web_server.url}/{given.name}"
    with pytest.raises(UserError, match=reason) as refused:
        with confined(tmp_path):
            download(data=data, version=version_of(data), recipe=READING, needs_labels=True, raw=str(tmp_path / "raw"))
        prepare(tmp_path / "raw", tmp_path / "dataset", 0)
    assert len(str(refused.value)) < 1000
    assert {path.name for path in tmp_path.iterdir()} <= {given.name, cache.parent.name, "raw"}
    assert not (tmp_path / "raw").exists() or (tmp_path / "raw" / "raw.json").is_file()
    assert not [path for path in cache.rglob("*") if path.is_file() and path.parent.name not in ("sha256", "urls")]
    note("hostile archive", archive=name + suffix * (not name.endswith(suffix)), by=by)


@pytest.mark.parametrize("name", PICTURES)
def test_a_hostile_picture_is_refused_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    given, raw = packed(tmp_path, {**PETS, f"cat/{name}": PICTURES[name]()}, "zip"), tmp_path / "raw"
    with confined(tmp_path):
        download(data=str(given), version=version_of(str(given)), recipe=READING, needs_labels=True, raw=str(raw))
    with pytest.raises(UserError, match=rf"cat/{re.escape(name)} cannot be used: .*max_bad_images"):
        prepare(raw, tmp_path / "dataset", 0)
    assert not list(tmp_path.glob("dataset*"))
    prepare(raw, tmp_path / "dataset", 1)
    dataset = open_dataset(tmp_path / "dataset")
    assert [bad.name for bad in dataset.document.bad_images or []] == [f"cat/{name}"]
    assert sum(dataset.counts.values()) == len(PETS)
    note("hostile picture", picture=name)
