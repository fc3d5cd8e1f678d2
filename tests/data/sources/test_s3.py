"""Data sets in S3, on a real server: pinned by ETags, packed or copied, read with the source's own keys."""

from pathlib import Path

import pytest

from components.download import download
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.raw import Raw, open_raw
from components.shared.storage.client import open_store
from tests.data.versions import READING, version_of
from tests.sample_files import picture, tar_bytes
from tests.servers.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.slow
PICTURES = {f"{kind}/{number}.png": picture(number) for kind in ("cat", "dog") for number in range(40)}
ARCHIVE = tar_bytes(PICTURES)
PETS = f"s3://{BUCKET}/data/pets"


@pytest.fixture(scope="module")
def server(server: S3Server) -> S3Server:
    """The server, with pictures and with an archive of them."""
    store = open_store(f"s3://{BUCKET}/data", server.environment)
    for name, content in PICTURES.items():
        store.put_bytes(content, f"pets/{name}")
    store.put_bytes(b"hidden", "pets/cat/.DS_Store")
    store.put_bytes(ARCHIVE, "pets.tar.gz")
    return server


@pytest.fixture(autouse=True)
def environment(server: S3Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys are those of the source only."""
    for name, value in server.environment.items():
        monkeypatch.setenv(f"SOURCE_{name}", value)
        monkeypatch.delenv(name, raising=False)


def get(data: str, raw: Path) -> Raw:
    download(data=data, version=version_of(data), recipe=READING, needs_labels=True, raw=str(raw))
    return open_raw(raw)


def samples(raw: Raw) -> list[tuple[int, bytes]]:
    return [
        (int(label), content)
        for chunk in raw.chunks(7)
        for label, content in zip(chunk.labels, chunk.encoded or [], strict=True)
    ]


def test_pictures_below_a_prefix_are_packed_like_a_folder(tmp_path: Path) -> None:
    for name, content in PICTURES.items():
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(content)
    found, same = get(PETS, tmp_path / "raw"), get(str(tmp_path / "pets"), tmp_path / "same")
    assert (found.name, found.classes, found.counts) == ("pets", ["cat", "dog"], {"all": 80})
    assert sorted(samples(found)) == sorted(samples(same))
    assert sha256_file(tmp_path / "raw" / "pictures-00000.tar") == sha256_file(tmp_path / "same" / "pictures-00000.tar")


def test_objects_are_told_by_their_first_bytes(server: S3Server, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}/data/odd", server.environment)
    pictures = {f"{kind}/{number}": picture(number) for kind in ("cat", "dog") for number in range(40)}
    others = {"cat/a.mov": b"\0\0\0\x14ftypqt  ", "dog/b": b"%PDF-1.4", "dog/empty": b"", "dog/.DS_Store": b"x"}
    for name, content in (pictures | others).items():
        store.put_bytes(content, name)
    raw = get(f"s3://{BUCKET}/data/odd", tmp_path / "raw")
    assert sorted(samples(raw)) == sorted((int("dog" in name), content) for name, content in pictures.items())
    assert raw.document.left_out
    assert [files.kind for files in raw.document.left_out.files] == [
        ".DS_Store",
        ".mov",
        ".pdf",
        "without a known suffix",
    ]


def test_an_archive_is_copied_unchanged(tmp_path: Path) -> None:
    raw = get(f"{PETS}.tar.gz", tmp_path / "raw")
    assert sorted(samples(raw)) == sorted((int("dog" in name), content) for name, content in PICTURES.items())
    assert (tmp_path / "raw" / "download.tar.gz").read_bytes() == ARCHIVE


def test_the_version_depends_on_the_objects(server: S3Server) -> None:
    store = open_store(PETS, server.environment)
    first = version_of(PETS)
    assert version_of(PETS) == first
    assert version_of(f"{PETS}.tar.gz").startswith("ETag: ")
    store.put_bytes(picture(99), "cat/0.png")
    changed = version_of(PETS)
    store.put_bytes(PICTURES["cat/0.png"], "cat/0.png")
    assert changed != first == version_of(PETS)


def test_objects_that_change_during_the_run_are_refused(server: S3Server, tmp_path: Path) -> None:
    version = version_of(PETS)
    store = open_store(PETS, server.environment)
    store.put_bytes(picture(99), "dog/new.png")
    with pytest.raises(UserError, match=r"was listing:.* when the run began and is listing:.* now; run it again"):
        download(data=PETS, version=version, recipe=READING, needs_labels=True, raw=str(tmp_path / "raw"))
    store.remove("dog/new.png")
    assert not list(tmp_path.glob("raw*"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (f"s3://{BUCKET}/no/such/place", "holds no objects; check the address"),
        (f"s3://{BUCKET}/no/such.zip", "no/such.zip does not exist; check the address"),
        ("s3://no-such-bucket/pets", "no such bucket"),
        ("s3://", "give s3://bucket/prefix"),
    ],
)
def test_an_address_without_data_is_reported(data: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        version_of(data)


def test_wrong_keys_are_reported_with_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="SOURCE_AWS_ACCESS_KEY_ID and SOURCE_AWS_SECRET_ACCESS_KEY"):
        version_of(PETS)


def test_our_keys_are_used_if_the_source_has_none(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.delenv(f"SOURCE_{name}")
        monkeypatch.setenv(name, value)
    assert version_of(PETS).startswith("listing:")
