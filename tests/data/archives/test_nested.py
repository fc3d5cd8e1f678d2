"""Archives within an archive or a folder are read in their place, one level deep."""

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.data.archives import limits
from components.shared.data.layout.reading import Reading
from components.shared.data.sources.local import LocalSource
from components.shared.data.sources.schemes import RawDescription
from tests.sample_files import picture, tar_bytes

PETS = {f"{kind}/{number}.png": picture(number) for kind in ("cat", "dog") for number in range(3)}
FLAT = {f"{number}.png": picture(number) for number in range(3)}


def zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        for name, content in files.items():
            out.writestr(name, content)
    return packed.getvalue()


def fetched(folder: Path, files: Mapping[str, bytes], kind: str) -> RawDescription:
    given, raw = folder / f"pets{kind}", folder / "raw"
    raw.mkdir()
    if kind:
        given.write_bytes(zipped(files) if kind == ".zip" else tar_bytes(dict(files)))
    for name, content in {} if kind else files.items():
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        (given / name).write_bytes(content)
    return LocalSource(given).fetch(raw, Reading())


@pytest.mark.parametrize("kind", [".zip", ".tar.gz", ""])
@pytest.mark.parametrize(
    ("files", "counts"),
    [
        ({"x/pets.tar.gz": tar_bytes(PETS)}, {"all": 6}),
        ({"train.zip": zipped(PETS), "test.tar": tar_bytes(PETS, "w"), "readme.txt": b"x"}, {"train": 6, "test": 6}),
        ({"cat.zip": zipped(FLAT), "dog.zip": zipped(FLAT), "__MACOSX/fox.zip": b"x"}, {"all": 6}),
    ],
    ids=["whole", "splits", "classes"],
)
def test_archives_within_are_read_in_their_place(
    tmp_path: Path, kind: str, files: dict[str, bytes], counts: dict[str, int]
) -> None:
    described = fetched(tmp_path, files, kind)
    assert (described["classes"], described["counts"]) == (["cat", "dog"], counts)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == described["files"] == ["pictures-00000.tar"]


def test_archives_beside_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    described = fetched(tmp_path, {**PETS, "backup.zip": zipped(PETS)}, ".zip")
    assert described["counts"] == {"all": 6}
    assert described["left_out"].sentences() == ["1 file that is no picture left out: 1 .zip"]


def test_a_second_level_of_archives_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pets\.zip holds no pictures"):
        fetched(tmp_path, {"a.zip": zipped({"b.zip": zipped(PETS)})}, ".zip")


@pytest.mark.parametrize("kind", [".zip", ".tar.gz", ""])
def test_an_archive_within_that_is_not_read_is_named(tmp_path: Path, kind: str) -> None:
    files = {"labels.csv": b"id,label", "x/train.7z": b"7z\xbc\xaf\x27\x1c", "x/test.rar": b"Rar!"}
    named = "test.rar in .* is a RAR" if not kind else "train.7z in .* is a 7z"
    with pytest.raises(UserError, match=rf"^x/{named} archive, which is not read; unpack it, and pack it as zip"):
        fetched(tmp_path, files, kind)


def test_a_broken_archive_within_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pets\.zip: x/cat\.zip cannot be read as an archive"):
        fetched(tmp_path, {"x/cat.zip": zipped(FLAT)[:-30]}, ".zip")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["download.zip"]


def test_a_bomb_in_two_stages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FROM_BYTES", 1000)
    inner = tar_bytes({"1.png": os.urandom(1500) + bytes(150_000)})  # which alone is within the limit
    with pytest.raises(UserError, match=r"pets\.tar\.gz unpacks to more than 200 times its size"):
        fetched(tmp_path, {f"{number}.tar.gz": inner for number in range(100)}, ".tar.gz")
