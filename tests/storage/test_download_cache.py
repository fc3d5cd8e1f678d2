"""The cache of downloaded files."""

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.storage.download_cache import cache_folder, cache_path, cached, download_folder
from tests.conftest import ROOT

DOWNLOAD = """
import sys
from components.shared.storage.download_cache import download_folder
with download_folder() as folder:
    (folder / "file").write_text("half of it")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_download_left_is_removed(cache: Path) -> None:
    command = [sys.executable, "-c", DOWNLOAD]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) as killed,
        subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) as other,
    ):
        assert killed.stdout and other.stdout
        left, used = (Path(process.stdout.readline().strip()) for process in (killed, other) if process.stdout)
        killed.kill()
        killed.wait()
        assert (left / "file").exists()
        with download_folder() as folder, download_folder() as second:
            assert {*cache.glob("download-*")} == {used, folder, second}
            assert (used / "file").exists()
        other.communicate("")
    assert not [*cache.glob("download-*")]


def test_a_stored_file_is_found_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digest = hashlib.sha256(b"abc").hexdigest()
    assert cached(digest) is None
    cache_path(digest).write_bytes(b"abc")
    assert cached(digest) == tmp_path / "torch2kubeflow" / "sha256" / digest


def test_a_corrupt_file_is_deleted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digest = hashlib.sha256(b"abc").hexdigest()
    cache_path(digest).write_bytes(b"abd")
    assert cached(digest) is None
    assert not cache_path(digest).exists()
    assert f"{cache_path(digest)} is damaged and was deleted" in capsys.readouterr().out


@pytest.mark.parametrize("digest", ["", "abc", "../" * 9 + "etc/passwd", "/etc/passwd", "A" * 64, "a" * 64 + "\n"])
def test_only_a_digest_leads_to_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="is no SHA-256"):
        cached(digest)


def test_a_cache_folder_that_cannot_be_created_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be created .*; set XDG_CACHE_HOME to a writable folder"):
        cache_folder()


def test_a_full_disk_is_not_a_wrong_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match="No space left"):
        cache_folder()
