"""An archive that is read in ranges gives what it gives as a whole, for few requests, and is refused as that is."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.data.archives.ranged import FIRST_BYTES, RangedFile
from components.shared.data.layout.reading import Reading
from components.shared.data.parts.reading import ANY_SIZE, located, read_listed
from components.shared.data.parts.source_listing import list_archive
from components.shared.data.sources.archive import members
from components.shared.data.sources.schemes import Listed
from tests.data.archives.hostile import FILES, KINDS, REFUSED, packed
from tests.fuzz.confinement import confined
from tests.sample_files import picture

PLAIN = [name for name, (suffix, _, _) in REFUSED.items() if suffix in (".zip", ".tar")]


class Server:
    """A file, and the ranges of it that were asked for."""

    def __init__(self, path: Path) -> None:
        self.path, self.content = path, path.read_bytes()
        self.asked: list[int] = []  # lengths

    def open(self, key: str = "", etag: str = "", size: int = ANY_SIZE) -> RangedFile:
        return RangedFile(str(self.path), key, etag, size, self._fetch)

    def _fetch(self, start: int, length: int) -> bytes:
        self.asked.append(length)
        return self.content[start : start + length]

    def listed(self) -> list[Listed]:
        file = self.open("key", "etag", len(self.content))
        return [
            Listed(member.name, member.key, member.etag, member.size, 0, "all", member.span)
            for member in located(members(file), file)
            if not member.is_folder
        ]

    def read(self, pictures: list[Listed]) -> dict[str, bytes]:
        contents = read_listed(pictures, lambda _: pytest.fail("no member"), self.open)
        return {picture.name: content for picture, content in zip(pictures, contents, strict=True)}


@pytest.mark.parametrize("kind", KINDS[:2])
def test_members_are_read_by_their_places(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"x{kind}").write_bytes(packed(kind))
    server = Server(tmp_path / f"x{kind}")
    assert server.read(server.listed()) == FILES
    assert {(picture.key, picture.etag) for picture in server.listed()} == {("key", "etag")}


@pytest.mark.parametrize("name", PLAIN)
def test_a_faulty_archive_is_refused_by_name(tmp_path: Path, name: str) -> None:
    suffix, content, reason = REFUSED[name]
    (tmp_path / f"given{suffix}").write_bytes(content())
    server = Server(tmp_path / f"given{suffix}")
    with pytest.raises(UserError, match=reason) as refused, confined(tmp_path):
        server.read(server.listed())
    assert str(refused.value).startswith(f"{server.path} ")


def test_entries_of_a_zip_that_share_bytes_are_refused(tmp_path: Path) -> None:
    found = bytearray(packed(".zip"))
    second = found.rindex(b"PK\1\2")
    found[second + 42 : second + 46] = bytes(4)  # where the second member begins
    (tmp_path / "x.zip").write_bytes(found)
    with pytest.raises(UserError, match=r"Overlapped entries: .* bomb"):
        Server(tmp_path / "x.zip").listed()


def test_a_tar_that_ends_within_a_member_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(packed(".tar"))
    server = Server(tmp_path / "x.tar")
    pictures = server.listed()
    server.content = server.content[:1000]
    with pytest.raises(UserError, match=r"x\.tar ends within cat/1\.png; replace it with an intact copy"):
        server.read(pictures)


@pytest.mark.parametrize(("size", "at_most"), [(4096, 30), (3 * 2**20, 14)], ids=["small", "large"])
def test_a_tar_is_listed_by_few_requests(tmp_path: Path, size: int, at_most: int) -> None:
    archive, count = io.BytesIO(), 10 if size > 2**20 else 5000
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    (tmp_path / "x.tar").write_bytes(archive.getvalue())
    server = Server(tmp_path / "x.tar")
    pictures = server.listed()
    assert len(pictures) == count and len(server.asked) <= at_most
    if size > 2**20:
        assert max(server.asked) == FIRST_BYTES, "what is in members is passed over"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_neighbours_are_read_by_one_request(tmp_path: Path, kind: str) -> None:
    files = {f"{number}.png": bytes([number]) * 2000 for number in range(200)}
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in files.items():
                out.writestr(name, content)
    else:
        path.write_bytes(packed(".tar", files))
    server = Server(path)
    pictures = server.listed()
    server.asked.clear()
    assert server.read(pictures) == files
    assert len(server.asked) == 1
    every_other = pictures[::-2]
    server.asked.clear()
    assert server.read(every_other) == {picture.name: files[picture.name] for picture in every_other}


def test_an_archive_is_passed_over_once(tmp_path: Path) -> None:
    files = {f"{kind}/{number}": picture(number) + bytes(4000) for kind in ("cat", "dog") for number in range(500)}
    (tmp_path / "x.tar").write_bytes(packed(".tar", files))
    server = Server(tmp_path / "x.tar")
    file = server.open("key", "etag", len(server.content))
    _, pictures = list_archive(file, "x.tar", Reading(), "")
    assert [picture.name for picture in pictures] == [*files]
    assert sum(server.asked) < 1.1 * len(server.content)
