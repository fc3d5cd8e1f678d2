"""Archives of every kind with every fault: each is read or refused in one line, in bounded time and memory."""

import bz2
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from components.shared.core.errors import UserError
from components.shared.data.archives import limits
from components.shared.data.sources.archive import members
from tests.data.archives.hostile import FILES, KINDS, MIB, REFUSED, lying_zip, packed
from tests.fuzz.confinement import confined

LARGE = ("headers-alone", "long-unstated", "zeros.tar.bz2", "zeros.tar.xz", "bomb.tar.xz")


def read_all(path: Path) -> dict[str, bytes]:
    found = {}
    for member in members(path):
        if not member.is_folder:
            with member.open() as file:
                found[member.name] = file.read()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_intact_archive_is_read_whatever_its_name(tmp_path: Path, kind: str) -> None:
    for name in ("x.zip", "x.tar", "download"):
        (tmp_path / name).write_bytes(packed(kind))
        assert read_all(tmp_path / name) == FILES


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else []) for name in REFUSED]
)
def test_a_faulty_archive_is_refused_by_name(tmp_path: Path, name: str) -> None:
    suffix, content, reason = REFUSED[name]
    path = tmp_path / f"given{suffix}"
    path.write_bytes(content())
    with pytest.raises(UserError, match=reason) as refused, confined(tmp_path):
        read_all(path)
    assert str(refused.value).startswith(f"{path} ") and len(str(refused.value)) < 1000


def test_a_zip_whose_directory_fills_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.shared.data.archives.zip_reader.HARMLESS_BYTES", 0)
    monkeypatch.setattr("components.shared.data.archives.zip_reader.free_memory", lambda: 1000)
    (tmp_path / "x.zip").write_bytes(packed(".zip"))
    with pytest.raises(UserError, match="needs 0 MiB of memory, and 0 MiB are free; pack it as tar"):
        read_all(tmp_path / "x.zip")


def test_the_remedy_of_a_large_archive_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FROM_BYTES", 1)
    (tmp_path / "x.zip").write_bytes(packed(".zip", {"cat/1.png": bytes(10**6)}))
    with pytest.raises(UserError, match="if you trust it, unpack it and give the folder"):
        read_all(tmp_path / "x.zip")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "stream"),
    [(zipfile.ZIP_DEFLATED, zlib.compressobj(wbits=-15)), (zipfile.ZIP_BZIP2, bz2.BZ2Compressor())],
    ids=["deflate", "bzip2"],
)
def test_a_member_that_unpacks_to_more_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: int, stream: Any
) -> None:
    zeros = b"".join(stream.compress(bytes(16 * MIB)) for _ in range(20)) + stream.flush()
    (tmp_path / "x.zip").write_bytes(lying_zip(method, zeros))
    monkeypatch.setattr("tests.fuzz.confinement.MEMORY", 160 * MIB)
    with confined(tmp_path):
        assert read_all(tmp_path / "x.zip") == {"cat/1.png": bytes(70)}
