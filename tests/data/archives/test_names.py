"""Names in archives: backslashes, encodings that are not stated, and one spelling of accented letters."""

import io
import struct
import tarfile
import unicodedata
import zlib
from pathlib import Path

import pytest

from components.shared.data.layout.reading import Reading
from components.shared.data.sources.archive import members
from components.shared.data.sources.local import LocalSource
from tests.sample_files import picture, tar_bytes, zip_bytes

# Encoding, and names that are told apart by it alone: the second byte of 表 in Shift-JIS is a backslash.
NAMES = {
    "utf-8": ["猫", "狗"],
    "gb18030": ["猫", "狗"],
    "gbk": ["模型", "健康", "患病"],
    "cp932": ["表", "犬"],
    "sjis": ["犬", "猫"],
    "shift_jis": ["りんご", "バナナ"],
    "cp850": ["Äpfel", "Rüde", "maçã", "Mäßig"],
    "cp866": ["кошка", "собака"],
}


def names(path: Path) -> list[str]:
    return [member.name for member in members(path)]


def write(folder: Path, suffix: str, files: list[bytes]) -> Path:
    path = folder / f"x{suffix}"
    if suffix == ".zip":
        path.write_bytes(zip_bytes({name: picture(number) for number, name in enumerate(files)}))
        return path
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for number, name in enumerate(files):
            info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            info.size = len(picture(number))
            tar.addfile(info, io.BytesIO(picture(number)))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("encoding", NAMES)
def test_names_in_an_unstated_encoding_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, encoding: str
) -> None:
    found = [f"{name}/{number}.png" for name in NAMES[encoding] for number in range(2)]
    assert names(write(tmp_path, suffix, [name.encode(encoding) for name in found])) == found
    said = capsys.readouterr().out
    assert (f"such as {found[0]!r}" in said) == (encoding != "utf-8")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_the_encoding_that_was_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    names(write(tmp_path, suffix, [b"ascii/1.png", "りんご/1.png".encode("cp932")]))
    expected = f"x{suffix}: the names are not in UTF-8 and are read as Shift-JIS, such as 'りんご/1.png'\n"
    assert expected in capsys.readouterr().out


def test_a_name_stated_in_utf8_beside_it_is_preferred(tmp_path: Path) -> None:
    stated = struct.pack("<BL", 1, zlib.crc32(b"??/1.png")) + "猫/1.png".encode()
    extra = struct.pack("<HHB", 0x9999, 1, 0) + struct.pack("<HH", 0x7075, len(stated)) + stated
    (tmp_path / "x.zip").write_bytes(zip_bytes({b"\x81\x81/1.png": b"", b"??/1.png": b""}, extra))
    assert names(tmp_path / "x.zip")[1] == "??/1.png"  # which is ASCII: nothing is unstated
    stated = struct.pack("<BL", 1, zlib.crc32(b"\x81/1.png")) + "猫/1.png".encode()
    (tmp_path / "x.zip").write_bytes(zip_bytes({b"\x81/1.png": b""}, struct.pack("<HH", 0x7075, len(stated)) + stated))
    assert names(tmp_path / "x.zip") == ["猫/1.png"]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_backslashes_separate_folders(tmp_path: Path, suffix: str) -> None:
    files = {rf"{kind}\{kind}{number}.png": picture(number) for kind in ("cat", "dog") for number in range(2)}
    path = tmp_path / f"pets{suffix}"
    encoded = {name.encode(): content for name, content in files.items()}
    path.write_bytes(zip_bytes({b"cat\\": b"", **encoded}) if suffix == ".zip" else tar_bytes(files))
    raw = tmp_path / "raw"
    raw.mkdir()
    described = LocalSource(path).fetch(raw, Reading())
    assert (described["classes"], described["counts"]) == (["cat", "dog"], {"all": 4})


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar.gz"])
def test_both_spellings_of_a_letter_are_one_class(tmp_path: Path, suffix: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    spelled = {"train": composed, "test": decomposed}
    files = {
        f"{split}/{name}/1.png": picture(len(split)) for split, accented in spelled.items() for name in ("a", accented)
    }
    path = tmp_path / f"x{suffix}"
    if suffix:
        path.write_bytes(
            zip_bytes({name.encode(): content for name, content in files.items()})
            if suffix == ".zip"
            else tar_bytes(files)
        )
    for name, content in {} if suffix else files.items():
        (path / name).parent.mkdir(parents=True)
        (path / name).write_bytes(content)
    raw = tmp_path / "raw"
    raw.mkdir()
    described = LocalSource(path).fetch(raw, Reading())
    assert (described["classes"], described["counts"]) == (["a", composed], {"train": 2, "test": 2})
