"""Files kept by content."""

import hashlib
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.storage.download_cache import cache_folder, cache_path, cached


def test_a_kept_file_is_found_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digest = hashlib.sha256(b"abc").hexdigest()
    assert cached(digest) is None
    cache_path(digest).write_bytes(b"abc")
    assert cached(digest) == tmp_path / "torch2kubeflow" / "sha256" / digest


def test_a_damaged_file_is_removed_and_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digest = hashlib.sha256(b"abc").hexdigest()
    cache_path(digest).write_bytes(b"abd")
    assert cached(digest) is None
    assert not cache_path(digest).exists()


def test_a_cache_that_cannot_be_made_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        cache_folder()
