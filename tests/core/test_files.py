"""Files, folders and JSON documents that appear whole or not at all."""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from components.shared.core.code_digest import code_version
from components.shared.core.errors import UserError
from components.shared.core.files import (
    MAX_JSON_BYTES,
    new_file,
    new_folder,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from tests.fuzz.confinement import confined


def test_a_folder_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_vanishes_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


def test_a_new_folder_replaces_old_and_partial_ones(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    (tmp_path / "out.partial").mkdir()
    with new_folder(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == ["out"]
    assert not os.listdir(tmp_path / "out")


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of what is brought to the disk, and of what is renamed, in their order."""
    calls: list[str] = []
    replace = os.replace

    def renamed(source: Path, target: Path) -> None:
        calls.append(f"{Path(source).name.split('.')[0]} -> {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda file: calls.append(Path(os.readlink(f"/proc/self/fd/{file}")).name))
    monkeypatch.setattr(os, "replace", renamed)
    return calls


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for the name of an open file")
def test_the_disk_has_all_before_a_name_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _recorded(monkeypatch)
    with new_file(tmp_path / "file") as file:
        file.write(b"new")
    mine = f"file.{os.getpid()}.partial"
    assert calls == [mine, "file -> file", tmp_path.name]
    calls.clear()
    with new_folder(tmp_path / "made") as folder:
        (folder / "inner").mkdir()
        (folder / "inner/a").write_bytes(b"1")
        (folder / "b").write_bytes(b"2")
        (folder / "link").symlink_to("nowhere")
    assert calls == ["a", "inner", "b", "made.partial", "made -> made", tmp_path.name]
    calls.clear()
    with new_file(tmp_path / "file", is_synced=False) as file:
        file.write(b"other")
    assert calls == ["file -> file"]


def test_a_file_keeps_its_old_content_when_the_block_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="full"), new_file(tmp_path / "a") as file:
        file.write(b"new")
        raise OSError("full")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_document_is_read_as_written(tmp_path: Path) -> None:
    document = {"format": "f", "classes": ["ä", "b"], "share": 0.1}
    write_json(tmp_path / "a.json", document)
    assert read_json(tmp_path / "a.json", "f") == document


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a JSON"),
        ("[1]", "has the format None"),
        ('{"format": "g"}', "has the format 'g'"),
        ("\xff", "not a JSON"),
    ],
)
def test_an_invalid_document_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=reason) as error:
        read_json(tmp_path / "a.json", "f")
    assert str(tmp_path / "a.json") in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["[" * 190 + "]" * 190, '{"":' * 190 + "[]" + "}" * 190, '"ā"'], ids=["lists", "objects", "texts"]
)
def test_any_document_needs_less_than_a_gib_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setattr("tests.fuzz.confinement.SECONDS", 100)
    head, element, end = '{"format": "f", "all": ["\\u0041😀"'.encode(), f",{unit}".encode(), b"]}"
    count = (MAX_JSON_BYTES - len(head) - len(end)) // len(element)
    (tmp_path / "a.json").write_bytes(head + element * count + end)
    with confined(tmp_path):
        assert len(read_json(tmp_path / "a.json", "f")["all"]) == 1 + count


def test_a_document_may_be_as_large_as_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"format": "f"}'.ljust(MAX_JSON_BYTES))
    assert read_json(tmp_path / "a.json", "f")
    (tmp_path / "a.json").write_bytes(b'{"format": "f"}'.ljust(MAX_JSON_BYTES + 1))
    assert read_json(tmp_path / "a.json", "f", MAX_JSON_BYTES + 1)
    with pytest.raises(UserError, match=f"more than {MAX_JSON_BYTES:,} bytes"):
        read_json(tmp_path / "a.json", "f")


def test_a_missing_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json", "f")


def test_digests_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1}) != sha256_json({"a": 1, "b": 2})


def test_the_code_version_is_stable() -> None:
    assert code_version() == code_version()
    assert len(code_version()) == 12


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_a_full_disk_is_named_by_what_was_to_appear(
    tmp_path: Path, new: Callable[[Path], AbstractContextManager[object]]
) -> None:
    with pytest.raises(OSError) as full, new(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")  # without a name, as a write raises it
    assert full.value.filename == str(tmp_path / "out") and not os.listdir(tmp_path)
