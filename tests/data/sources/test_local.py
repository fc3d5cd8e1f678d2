"""Data sets on this machine: what is refused before it is read, and what a file's first bytes tell."""

from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.data.layout.reading import Reading
from components.shared.data.sources.local import LocalSource, open_source
from tests.sample_files import picture, tar_bytes
from tests.small_packages import write_dataset

PAGE = b"<!DOCTYPE html><html><head><title>Virus scan warning</title></head><body>too large</body></html>"


def test_a_web_page_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(PAGE)
    (tmp_path / "raw").mkdir()
    source = LocalSource(tmp_path / "pets.zip")
    for use in (source.version, lambda: source.fetch(tmp_path / "raw", Reading())):
        with pytest.raises(UserError, match=r"pets\.zip is a web page, not an archive: .*'Virus scan warning'"):
            use()


@pytest.mark.parametrize(("name", "kind"), [("pets.7z", "7z"), ("pets.RAR", "RAR"), ("pets.zip", "7z")])
def test_an_archive_that_is_not_read_is_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(UserError, match=f"{name} is a {kind} archive, which is not read; unpack it, and pack it as"):
        LocalSource(tmp_path / name).version()


def test_an_archive_without_a_suffix_is_read(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "pets").write_bytes(tar_bytes({f"{kind}/1.png": picture(1) for kind in ("cat", "dog")}))
    described = LocalSource(tmp_path / "pets").fetch(tmp_path / "raw", Reading())
    assert (described["classes"], described["files"]) == (["cat", "dog"], ["download"])


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets.txt").write_text("cats and dogs")
    with pytest.raises(UserError, match=r"pets.txt is no folder, archive or table; give one of \.zip, "):
        LocalSource(tmp_path / "pets.txt")


def test_one_picture_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "cat.png").write_bytes(picture(1))
    (tmp_path / "dog.png").write_bytes(picture(2))
    source = open_source((tmp_path / "cat.png").as_uri())
    before = source.version()
    described = source.fetch(tmp_path / "raw", Reading(needs_labels=False))
    assert (described["counts"], described["name"]) == ({"all": 1}, "cat.png")
    (tmp_path / "cat.png").write_bytes(picture(33))
    assert source.version() != before


def test_a_prepared_dataset_is_no_source_of_pictures(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", 30)
    with pytest.raises(UserError, match=r"dataset is a prepared dataset, .*; give the pictures that it was made from"):
        LocalSource(tmp_path / "dataset")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "dataset.json").write_text('{"format": "another"}')
    LocalSource(tmp_path / "theirs")


def test_a_broken_archive_is_named_as_the_user_did(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "pets.zip").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=rf"^{tmp_path}/pets\.zip cannot be read as an archive"):
        LocalSource(tmp_path / "pets.zip").fetch(tmp_path / "raw", Reading())
