"""Links in archives and folders: one to what the tree holds is followed, any other is refused by name."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.data.sources.archive import members
from components.shared.data.sources.local import LocalSource
from tests.sample_files import packed

FILES = {".store/cat/1.png": b"one", ".store/cat/2.png": b"two", "dog/1.png": b"three"}
KINDS = ("", ".zip", ".tar", ".tar.gz")


def made(folder: Path, kind: str, links: dict[str, str]) -> Path:
    """Return a folder or an archive of FILES and links (name -> target), the links first."""
    path = folder / f"pets{kind}"
    if not kind:
        packed(folder, FILES, "folder")
        for name, target in links.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).symlink_to(target)
    elif kind == ".zip":
        with zipfile.ZipFile(path, "w") as out:
            for name, target in links.items():
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 3, 0o120777 << 16
                out.writestr(info, target)
            for name, content in FILES.items():
                out.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if kind == ".tar.gz" else "w") as tar:
            for name, target in links.items():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, target
                tar.addfile(link)
            for name, content in FILES.items():
                file = tarfile.TarInfo(name)
                file.size = len(content)
                tar.addfile(file, io.BytesIO(content))
    return path


def read(path: Path) -> dict[str, bytes]:
    found = {}
    for member in members(path):
        if not member.is_folder:
            with member.open() as file:
                assert member.name not in found
                found[member.name] = file.read()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_is_a_link_within_is_followed(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind, {"cat": ".store/cat", "train/puppy": "../dog/", "fox": "cat", "one.png": "cat/1.png"})
    cats = {f"{name}/{number}.png": FILES[f".store/cat/{number}.png"] for name in ("cat", "fox") for number in (1, 2)}
    assert read(path) == {**FILES, **cats, "train/puppy/1.png": b"three", "one.png": b"one"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["../elsewhere", "/tmp"])
def test_a_link_to_the_outside_is_refused_by_name(tmp_path: Path, kind: str, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = made(tmp_path, kind, {"cat": target})
    with pytest.raises(UserError, match=r"pets\S* holds (the link )?'cat',? .*outside (of it|the archive)"):
        read(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("target", "why"), [("cat", "itself|to no file"), (".", "what holds it|which holds it")])
def test_a_link_to_itself_is_refused_by_name(tmp_path: Path, kind: str, target: str, why: str) -> None:
    path = made(tmp_path, kind, {"cat": target})
    with pytest.raises(UserError, match=rf"holds (the link )?'cat'.* {why}"):
        read(path)


def test_folders_that_hold_links_to_each_other_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path, "", {"dog/friend": "../.store", ".store/friend": "../dog"})
    with pytest.raises(UserError, match=r"holds 'dog/friend/friend', a link to .*dog, which holds it; remove it"):
        read(path)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_link_to_nothing_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"holds the link 'cat' to 'store/cat', which is not in it; pack the files"):
        read(made(tmp_path, kind, {"cat": "store/cat"}))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_link_in_a_linked_folder_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"holds the link 'dog/friend' in 'dog', to which a link leads; pack the files"):
        read(made(tmp_path, kind, {"dog/friend": "../.store/cat", "cat": "dog"}))


@pytest.mark.parametrize("kind", KINDS)
def test_links_in_junk_are_not_read(tmp_path: Path, kind: str) -> None:
    assert read(made(tmp_path, kind, {"__MACOSX/cat": "/nowhere", ".git/cat": "../.."})) == FILES


def test_hard_links_are_read_under_both_names(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("cat/1.png", "cat/2.png"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"one"))
            info = tarfile.TarInfo(name.replace("cat", "fox"))
            info.type, info.linkname = tarfile.LNKTYPE, name
            tar.addfile(info)
    assert read(tmp_path / "x.tar") == dict.fromkeys(["cat/1.png", "cat/2.png", "fox/1.png", "fox/2.png"], b"one")


def test_the_version_depends_on_what_links_lead_to(tmp_path: Path) -> None:
    path = made(tmp_path, "", {"cat": ".store/cat"})
    before = LocalSource(path).version()
    (path / ".store" / "cat" / "1.png").write_bytes(b"changed")
    assert LocalSource(path).version() != before
