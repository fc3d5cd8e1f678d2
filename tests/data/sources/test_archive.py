"""Archives are read safely: members that lead outside, are no plain files, are too large or broken are refused."""

import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.shared.core.errors import UserError
from components.shared.data.archives import limits
from components.shared.data.archives.kinds import is_archive
from components.shared.data.archives.tar_reader import BLOCK
from components.shared.data.sources.archive import members
from tests.sample_files import TarMode, tar_bytes

FILES = {"a/1.png": b"one" * 100, "a/2.png": b"two", "b/1.png": b"three"}
TARS: dict[str, TarMode] = {
    ".tar": "w",
    ".tar.gz": "w:gz",
    ".tgz": "w:gz",
    ".tar.bz2": "w:bz2",
    ".tar.xz": "w:xz",
    ".tar.zst": "w:zst",
}
SUFFIXES = (".zip", *TARS)
BAD_NAMES = ("../x.png", "a/../../x.png", "/etc/x.png", "a\\..\\..\\x.png", "C:/x.png")


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in files.items():
                out.writestr(name, content)
    else:
        path.write_bytes(tar_bytes(files, TARS[path.name[1:]]))
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    found = {}
    for member in members(path):
        if not member.is_folder:
            with member.open() as file:
                found[member.name] = file.read()
            assert member.size == len(found[member.name])
    return found


def names(path: Path) -> list[str]:
    return [member.name for member in members(path)]


def tar_of(path: Path, name: str, kind: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_members_come_in_archive_order(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"x{suffix}", FILES)
    assert is_archive(path)
    assert list(unpacked(path).items()) == list(FILES.items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_name_may_be_of_any_language(tmp_path: Path, suffix: str) -> None:
    files = {"Äpfel/größe.png": b"one", "猫/1.png": b"two"}
    assert unpacked(pack(tmp_path / f"a{suffix}", files)) == files


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.png", "a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(FILES[name])
    assert unpacked(tmp_path) == FILES
    assert names(tmp_path) == ["a/", "a/1.png", "a/2.png", "b/", "b/1.png"]


def test_a_linked_file_in_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"one")
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "1.png").symlink_to(tmp_path / "1.png")
    assert unpacked(tmp_path / "pets") == {"1.png": b"one"}


def test_a_broken_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / ".hidden").symlink_to(tmp_path / "nowhere")
    (tmp_path / "pets" / "cat").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds 'cat', a link to no file"):
        names(tmp_path / "pets")


def test_an_unreadable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    found = members(tmp_path)
    assert next(found).name == "cat/"
    (tmp_path / "dog").rmdir()
    with pytest.raises(UserError, match=r"dog cannot be read \(No such file or directory\)"):
        list(found)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_are_normalized(tmp_path: Path, suffix: str) -> None:
    path = pack(tmp_path / f"x{suffix}", FILES | {"./a/3.png": b"x", "a//./4.png": b"x"})
    assert names(path) == [*FILES, "a/3.png", "a/4.png"]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, suffix: str, name: str) -> None:
    with pytest.raises(UserError, match="which leads outside the archive"):
        names(pack(tmp_path / f"x{suffix}", {**FILES, name: b""}))


def test_a_name_that_contains_two_dots_is_accepted(tmp_path: Path) -> None:
    assert names(pack(tmp_path / "x.zip", {"a/..1.png..png": b"", "a/1..png": b""})) == ["a/..1.png..png", "a/1..png"]


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_a_tar_member_that_is_not_a_plain_file_is_refused(tmp_path: Path, kind: bytes, word: str) -> None:
    with pytest.raises(UserError, match=f"holds the {word} 'a/x.png'"):
        names(tar_of(tmp_path / "x.tar", "a/x.png", kind))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/x.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        out.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match=r"holds the link 'a/x\.png'"):
        names(tmp_path / "x.zip")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a/x.png": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\3\4") + 6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"'a/x\.png' encrypted; pack it without a password"):
        names(path)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_an_archive_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(limits, "RATIO_FROM_BYTES", 1 << 20)
    path = pack(tmp_path / f"x{suffix}", {"a/x.png": bytes(3 << 20)})
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        names(path)


def test_a_small_archive_may_have_a_high_ratio(tmp_path: Path) -> None:
    assert names(pack(tmp_path / "x.zip", {"a/x.png": bytes(3 << 20)})) == ["a/x.png"]


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(limits, "MAX_MEMBERS", 2)
    with pytest.raises(UserError, match="more than 2 members"):
        names(pack(tmp_path / f"x{suffix}", FILES))


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_member_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(limits, "MAX_MEMBER_BYTES", 299)
    with pytest.raises(UserError, match=r"holds 'a/1\.png' of 300 bytes, more than 299; remove it"):
        names(pack(tmp_path / f"x{suffix}", FILES))


def test_too_many_bytes_in_total_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TOTAL_BYTES", 302)
    with pytest.raises(UserError, match=r"holds more than 302 bytes \(at 'a/2\.png'\); split it"):
        names(pack(tmp_path / "x.zip", FILES))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 30
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(UserError, match="a header of 1,073,741,824 bytes"):
        names(tmp_path / "x.tar")


def test_an_endless_chain_of_headers_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 512
    (tmp_path / "x.tar").write_bytes((info.tobuf() + b"12 a=123456\n".ljust(512, b"\0")) * 2000 + bytes(1024))
    with pytest.raises(UserError, match="cannot be read as an archive"):
        names(tmp_path / "x.tar")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_truncated_archive_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = pack(tmp_path / f"x{suffix}", {"a/1.png": os.urandom(20_000), "a/2.png": os.urandom(20_000)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match="cannot be read as an archive"):
        unpacked(path)


def test_a_tar_without_an_end_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", FILES)
    path.write_bytes(path.read_bytes()[:2048])
    with pytest.raises(UserError, match="truncated, or a damaged header"):
        names(path)


def test_a_damaged_tar_header_is_not_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", FILES)
    content = bytearray(path.read_bytes())
    content[1024] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="truncated, or a damaged header"):
        names(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_text("not found" * 100)
    with pytest.raises(UserError, match="cannot be read as an archive"):
        names(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_damaged_member_is_reported_when_it_is_read(tmp_path: Path, suffix: str) -> None:
    noise = os.urandom(5000)
    path = pack(tmp_path / f"x{suffix}", {"a/1.png": noise})
    content = bytearray(path.read_bytes())
    content[2500] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as an archive"):
        unpacked(path)


def test_the_checksum_after_the_end_of_the_tar_is_checked(tmp_path: Path) -> None:
    packed = gzip.compress(tar_bytes(FILES, "w") + bytes(3 * BLOCK))
    (tmp_path / "x.tar.gz").write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    with pytest.raises(UserError, match="CRC check failed"):
        unpacked(tmp_path / "x.tar.gz")


def test_a_zip_with_damaged_names_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"é.png": b"x"})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xc3x"))
    with pytest.raises(UserError, match="cannot be read as an archive"):
        names(path)


def test_a_zip_with_members_before_its_start_is_refused(tmp_path: Path) -> None:
    content = bytearray(pack(tmp_path / "x.zip", FILES).read_bytes())
    offset_of_directory = content.index(b"PK\5\6") + 16
    content[offset_of_directory] += 2
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as an archive"):
        unpacked(tmp_path / "x.zip")


def test_a_zip_member_without_a_name_is_ignored(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {**FILES, "nameless": b""})
    path.write_bytes(path.read_bytes().replace(b"nameless", bytes(8)))
    assert names(path) == list(FILES)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/x/caf\xe9")
    with pytest.raises(UserError, match="not UTF-8; rename it"):
        names(tmp_path / "x")


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".zip", ".tar", ".tar.gz"]),
    cut=st.integers(0, 12_000),
    flips=st.lists(st.tuples(st.integers(0, 12_000), st.integers(1, 255)), max_size=4),
)
def test_a_mutated_archive_is_read_or_refused(
    tmp_path: Path, suffix: str, cut: int, flips: list[tuple[int, int]]
) -> None:
    path = pack(tmp_path / f"x{suffix}", FILES)
    content = bytearray(path.read_bytes())
    for where, mask in flips:
        content[where % len(content)] ^= mask
    path.write_bytes(content[: len(content) - cut % len(content)])
    try:
        found = unpacked(path)
    except UserError:
        return
    assert suffix != ".tar.gz" or found == FILES  # its checksum finds everything
