"""Every kind of source becomes the same kind of raw folder, or an error in one line; nothing is half-written."""

import gzip
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.download import download
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.archives import shards
from components.shared.data.raw import Chunk, Raw, open_raw
from components.shared.data.sources import packing
from components.shared.data.sources.catalogue import CATALOGUE, File, Mirror
from components.shared.data.sources.idx import write_idx
from tests.data.versions import READING, version_of
from tests.sample_files import picture, sha256, tar_bytes
from tests.servers.web_server import WebServer

pytestmark = pytest.mark.usefixtures("cache")
PICTURES = {f"{kind}/{number}.png": picture(number) for number, kind in enumerate(("cat", "cat", "dog", "dog"))}
SPLITS = {f"{split}/{name}": content for split in ("train", "test") for name, content in PICTURES.items()}
IMAGES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
LABELS = np.array([0, 2, 1], np.uint8)


def get(data: object, tmp_path: Path, name: str = "raw") -> Raw:
    download(data=str(data), version=version_of(str(data)), recipe=READING, needs_labels=True, raw=str(tmp_path / name))
    return open_raw(tmp_path / name)


def refused(data: object, tmp_path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        download(
            data=str(data), version=version_of(str(data)), recipe=READING, needs_labels=True, raw=str(tmp_path / "raw")
        )
    assert not list(tmp_path.glob("raw*"))


def folder_of(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(tar_bytes(files))
    return path


def idx_of(folder: Path, *prefixes: str, suffix: str = "", labels: np.ndarray = LABELS) -> Path:
    folder.mkdir()
    for prefix in prefixes:
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", IMAGES)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
    return folder


def samples(raw: Raw) -> list[tuple[str, int, bytes]]:
    """Return split, label and bytes of every sample."""
    return [
        (chunk.split, int(label), content)
        for chunk in raw.chunks(2)
        for label, content in zip(chunk.labels, contents(chunk), strict=True)
    ]


def contents(chunk: Chunk) -> list[bytes]:
    return chunk.encoded or [] if chunk.images is None else [image.tobytes() for image in chunk.images]


def of_pictures(split: str = "all") -> list[tuple[str, int, bytes]]:
    return [(split, int(name.startswith("dog")), content) for name, content in PICTURES.items()]


def test_digits_need_no_network(tmp_path: Path) -> None:
    raw = get("digits", tmp_path)
    assert (raw.kind, raw.counts, raw.classes) == ("idx", {"all": 1797}, [str(digit) for digit in range(10)])
    (chunk,) = raw.chunks(2000)
    assert chunk.images is not None
    assert chunk.images.shape == (1797, 1, 8, 8) and chunk.images.max() == 255
    assert chunk.labels[:3].tolist() == [0, 1, 2]
    assert raw.digest == get("digits", tmp_path, "again").digest


def test_a_folder_of_pictures_is_packed(tmp_path: Path) -> None:
    raw = get(folder_of(tmp_path / "my pets", PICTURES), tmp_path)
    assert (raw.name, raw.kind, raw.classes, raw.counts) == ("my pets", "pictures", ["cat", "dog"], {"all": 4})
    assert sorted(os.listdir(raw.folder)) == ["pictures-00000.tar", "raw.json"]
    assert samples(raw) == of_pictures()


def changed_since(data: str, version: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"was .* when the run began and is .* now; run it again"):
        download(data=data, version=version, recipe=READING, needs_labels=True, raw=str(tmp_path / "raw"))
    assert not list(tmp_path.glob("raw*"))


def test_a_folder_that_changed_during_the_run_is_refused(tmp_path: Path) -> None:
    pets = folder_of(tmp_path / "pets", PICTURES)
    version = version_of(str(pets))
    (pets / "cat" / "more.png").write_bytes(picture(9))
    changed_since(str(pets), version, tmp_path)


def test_a_url_that_changed_during_the_run_is_refused(tmp_path: Path, web_server: WebServer) -> None:
    web_server.files["/pets.tar.gz"] = tar_bytes(PICTURES)
    version = version_of(f"{web_server.url}/pets.tar.gz")
    web_server.files["/pets.tar.gz"] = tar_bytes(SPLITS)
    changed_since(f"{web_server.url}/pets.tar.gz", version, tmp_path)


def test_a_file_uri_and_a_path_are_the_same(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "my pets#1", PICTURES)
    assert get(folder.as_uri(), tmp_path).digest == get(folder, tmp_path, "again").digest


def test_a_relative_path_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "pets", PICTURES)
    monkeypatch.chdir(tmp_path)
    assert samples(get("pets", tmp_path)) == samples(get("./pets", tmp_path, "again")) == of_pictures()


def test_packing_is_reproducible(tmp_path: Path) -> None:
    first = get(folder_of(tmp_path / "a", PICTURES), tmp_path, "first")
    shuffled = dict(reversed(PICTURES.items()))
    os.utime(next(folder_of(tmp_path / "b", shuffled).rglob("*.png")), (0, 0))
    second = get(tmp_path / "b", tmp_path, "second")
    assert sha256_file(first.folder / "pictures-00000.tar") == sha256_file(second.folder / "pictures-00000.tar")
    assert first.digest == second.digest


def test_many_pictures_are_packed_into_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    raw = get(folder_of(tmp_path / "pets", PICTURES), tmp_path)
    assert len(raw.document.files) == 4
    assert samples(raw) == of_pictures()


@pytest.mark.parametrize(("suffix", "pack"), [(".zip", zip_of), (".tar.gz", tar_of), (".TGZ", tar_of)])
def test_an_archive_is_copied_unchanged(tmp_path: Path, suffix: str, pack: object) -> None:
    archive = pack(tmp_path / f"pets{suffix}", {f"pets/{name}": content for name, content in PICTURES.items()})  # type: ignore[operator]
    raw = get(archive, tmp_path)
    assert samples(raw) == of_pictures()
    assert [file.sha256 for file in raw.document.files] == [sha256_file(archive)]


def test_splits_are_recognised_by_their_folders(tmp_path: Path) -> None:
    raw = get(folder_of(tmp_path / "pets", SPLITS), tmp_path)
    assert raw.counts == {"test": 4, "train": 4}
    assert samples(raw) == [*of_pictures("test"), *of_pictures("train")]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_copied_from_a_folder_or_archive(tmp_path: Path, suffix: str, packed: bool) -> None:
    source = idx_of(tmp_path / "idx", "train", "t10k", suffix=suffix)
    if packed:
        source = tar_of(tmp_path / "idx.tar.gz", {f"x/{path.name}": path.read_bytes() for path in source.iterdir()})
    raw = get(source, tmp_path)
    assert (raw.kind, raw.classes, raw.counts) == ("idx", ["0", "1", "2"], {"train": 3, "test": 3})
    assert len(os.listdir(raw.folder)) == 5
    assert samples(raw)[:3] == [("train", label, image.tobytes()) for label, image in zip(LABELS, IMAGES, strict=True)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "data=mnits is not accepted; give mnist, fashion-mnist, kmnist, cifar10, digits, a https://"),
        ("ftp://host/a.zip", "data=ftp://host/a.zip is not accepted"),
        ("gs://bucket/a", "data=gs://bucket/a is not accepted"),
        ("https://[", "data=https://\\[ is not a valid address"),
        ("/no/such/folder", "data=/no/such/folder does not exist"),
        ("file:///no/such/folder", "data=/no/such/folder does not exist"),
        ("file://host/pets", "data=file://host/pets has a host"),
        ("file:///pets.zip#sha256=0", "data=file:///pets.zip#sha256=0 has a host, \\? or #; give file:///path"),
        ("http://example.com/a.zip", "is not https"),
        ("https://example.com/a.html", "ends in 'a.html', which is no archive"),
        ("  ", "data=   is not accepted|data= is not accepted"),
    ],
)
def test_an_invalid_source_is_refused(tmp_path: Path, name: str, message: str) -> None:
    refused(name, tmp_path, message)


def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    refused(tmp_path / "a.txt", tmp_path, "is no folder, archive or table")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b""}, "holds no pictures"),
        ({"cat/1.png": b""}, "holds one class only"),
        ({**PICTURES, "emu/readme.txt": b""}, "has no picture of class 'emu'"),
        ({**PICTURES, "1.png": b""}, "outside a class"),
        ({**SPLITS, "test/emu/1.png": b""}, "has no picture of class 'emu' in train"),
        ({**SPLITS, "extra/cat/1.png": b""}, "has extra alongside train"),
    ],
)
def test_a_folder_without_a_classification_set_is_refused(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    refused(folder_of(tmp_path / "pets", files), tmp_path, message)


@pytest.mark.parametrize("name", ["../1.png", "/1.png"])
def test_an_archive_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    refused(zip_of(tmp_path / "pets.zip", {**PICTURES, name: b""}), tmp_path, "leads outside the archive")
    assert not list(tmp_path.rglob("1.png"))


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        info = tarfile.TarInfo("cat/1.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    refused(tmp_path / "pets.tar", tmp_path, "holds the link 'cat/1.png'")


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "pets.tar.gz", PICTURES)
    archive.write_bytes(archive.read_bytes()[:-20])
    refused(archive, tmp_path, "cannot be read as an archive")


def test_a_picture_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_PICTURE_BYTES", 999)
    archive = zip_of(tmp_path / "pets.zip", {**PICTURES, "cat/big.png": bytes(1000)})
    refused(archive, tmp_path, "holds cat/big.png of 1,000 bytes, more than 999; shrink it")


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    folder = idx_of(tmp_path / "idx", "train")
    (folder / "train-labels-idx1-ubyte").unlink()
    refused(folder, tmp_path, "has train-images-idx3-ubyte without train-labels-idx1-ubyte")


def test_a_file_and_its_gzipped_twin_count_once(tmp_path: Path) -> None:
    folder = idx_of(tmp_path / "idx", "train")
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    raw = get(folder, tmp_path)
    assert raw.counts == {"train": 3}
    assert sorted(os.listdir(raw.folder)) == ["raw.json", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"]


def test_a_folder_of_two_idx_sets_is_refused(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    for name in ("a", "b"):
        idx_of(tmp_path / "both" / name, "train")
    refused(tmp_path / "both", tmp_path, "both holds train-images-idx3-ubyte twice; give the folder or archive of one")


def test_idx_files_without_train_are_refused(tmp_path: Path) -> None:
    refused(idx_of(tmp_path / "idx", "test"), tmp_path, "has no train-images-idx3-ubyte")


def test_idx_files_of_one_class_are_refused(tmp_path: Path) -> None:
    refused(idx_of(tmp_path / "idx", "train", labels=0 * LABELS), tmp_path, "holds one class only")


@pytest.mark.parametrize("content", [b"\0\0\x08\x03", b"PK\3\4", gzip.compress(b"x")], ids=["cut", "zip", "gzip"])
def test_damaged_idx_files_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = idx_of(tmp_path / "idx", "train")
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    refused(folder, tmp_path, "train-images-idx3-ubyte")


def test_the_digest_of_a_downloaded_archive_is_recorded(
    tmp_path: Path, web_server: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    web_server.files["/pets.tar.gz?v=1"] = archive = tar_bytes(PICTURES)
    raw = get(f"{web_server.url}/pets.tar.gz?v=1", tmp_path)
    assert samples(raw) == of_pictures()
    assert raw.document.source_sha256 == sha256(archive)
    assert f"pets.tar.gz sha256={sha256(archive)}" in capsys.readouterr().out


def test_an_archive_with_another_digest_is_refused(tmp_path: Path, web_server: WebServer) -> None:
    web_server.files["/pets.tar.gz"] = tar_bytes(PICTURES)
    refused(f"{web_server.url}/pets.tar.gz#sha256={'0' * 64}", tmp_path, f"not {'0' * 64}")


def test_a_data_set_of_the_catalogue_comes_from_a_mirror(
    tmp_path: Path, web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {path.name: path.read_bytes() for path in idx_of(tmp_path / "idx", "train", "t10k").iterdir()}
    web_server.files = {f"/{name}.gz": gzip.compress(content) for name, content in contents.items()}
    files = tuple(File(name, len(content), sha256(content)) for name, content in contents.items())
    mirrors = (Mirror("web", f"{web_server.url}/", suffix=".gz"),)
    monkeypatch.setitem(CATALOGUE, "mnist", replace(CATALOGUE["mnist"], files=files, mirrors=mirrors))
    raw = get("mnist", tmp_path)
    assert (raw.source, raw.counts, len(raw.classes)) == ("mnist", {"train": 3, "test": 3}, 10)
    asked = len(web_server.asked)
    assert get("mnist", tmp_path, "again").digest == raw.digest
    assert len(web_server.asked) == asked == 4


def test_an_older_download_is_replaced(tmp_path: Path) -> None:
    folder_of(tmp_path / "raw", {"old": b""})
    get(folder_of(tmp_path / "pets", PICTURES), tmp_path)
    assert not (tmp_path / "raw" / "old").exists()


def test_a_failed_download_removes_the_older_one(tmp_path: Path) -> None:
    get(folder_of(tmp_path / "pets", PICTURES), tmp_path)
    refused(folder_of(tmp_path / "cats", {"cat/1.png": picture(0)}), tmp_path, "one class")
