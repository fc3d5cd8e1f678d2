"""Raw data is read sample by sample, in order, and damage is reported before anything is read."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data import raw as raw_module
from components.shared.data.raw import Chunk, Raw, open_raw, write_raw
from components.shared.data.sources.idx import write_idx
from components.shared.data.sources.schemes import Kind
from tests.sample_files import picture, tar_bytes

IMAGES = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
LABELS = np.array([0, 1, 1, 0, 1], np.uint8)
RECORDS = np.random.default_rng(0).integers(0, 256, (5, 3073), np.uint8)
RECORDS[:, 0] = [3, 1, 9, 0, 3]


def write(folder: Path, kind: Kind, classes: int, files: list[str], counts: dict[str, int], **facts: Any) -> Raw:
    names = [f"c{label}" for label in range(classes)]
    write_raw(
        folder,
        name="n",
        source="s",
        version="v",
        kind=kind,
        classes=names,
        counts=counts,
        files=files,
        seconds=0,
        **facts,
    )
    return open_raw(folder)


def idx(folder: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS, classes: int = 2) -> Raw:
    write_idx(folder / "i", images)
    write_idx(folder / "l", labels)
    splits = {"train": {"images": "i", "labels": "l"}}
    return write(folder, "idx", classes, ["i", "l"], {"train": len(images)}, splits=splits)


def cifar(folder: Path, batches: dict[str, bytes], classes: int = 10) -> Raw:
    files = {f"cifar-10-batches-bin/{name}": content for name, content in batches.items()}
    (folder / "c.tar.gz").write_bytes(tar_bytes(files))
    return write(folder, "cifar", classes, ["c.tar.gz"], {"train": 5, "test": 5})


def pictures(folder: Path, names: list[str], has_splits: bool) -> Raw:
    (folder / "p.tar").write_bytes(tar_bytes({name: picture(seed) for seed, name in enumerate(names)}, "w"))
    layout = {"root": 0, "has_splits": has_splits}
    return write(folder, "pictures", 2, ["p.tar"], {"all": len(names)}, layout=layout)


def chunks(raw: Raw, size: int = 2) -> list[Chunk]:
    return list(raw.chunks(size))


@pytest.mark.parametrize("size", [1, 2, 5, 99])
def test_idx_pairs_come_in_chunks(tmp_path: Path, size: int) -> None:
    found = chunks(idx(tmp_path), size)
    assert max(len(chunk.labels) for chunk in found) == min(size, 5)
    np.testing.assert_array_equal(np.concatenate([chunk.images for chunk in found]), IMAGES[:, None])
    np.testing.assert_array_equal(np.concatenate([chunk.labels for chunk in found]), LABELS)
    assert [name for chunk in found for name in chunk.names] == [f"train/{i}" for i in range(5)]
    assert {chunk.labels.dtype for chunk in found} == {np.dtype(np.int64)}


def test_different_numbers_of_images_and_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="i holds 5 images and l 4 labels"):
        chunks(idx(tmp_path, labels=LABELS[:4]))


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="s has the label 7 at train/4, but only 2 classes"):
        chunks(idx(tmp_path, labels=np.array([0, 1, 0, 1, 7], np.uint8)))


@pytest.mark.parametrize("size", [2, 5, 99])
def test_cifars_binary_batches_come_in_chunks(tmp_path: Path, size: int) -> None:
    batches = {"readme.html": b"x", "data_batch_1.bin": RECORDS.tobytes(), "test_batch.bin": RECORDS[::-1].tobytes()}
    found = chunks(cifar(tmp_path, batches), size)
    for split, records in (("train", RECORDS), ("test", RECORDS[::-1])):
        of_split = [chunk for chunk in found if chunk.split == split]
        images = np.concatenate([chunk.images for chunk in of_split])
        assert images.shape == (5, 3, 32, 32)
        np.testing.assert_array_equal(images[2, 1, 0], records[2, 1 + 1024 : 1 + 1024 + 32])  # green, first row
        np.testing.assert_array_equal(np.concatenate([chunk.labels for chunk in of_split]), records[:, 0])
    assert found[0].names[:2] == ["data_batch_1/0", "data_batch_1/1"]


def test_a_truncated_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CIFAR's test_batch is truncated: 3000 bytes of a record"):
        chunks(cifar(tmp_path, {"test_batch.bin": RECORDS.tobytes()[:-73]}))


def test_pictures_come_undecoded(tmp_path: Path) -> None:
    names = [
        "test/c0/1.png",
        "test/c1/2.png",
        "test/c1/3.png",
        "train/c0/4.jpg",
        "train/c1/notes.txt",
        "train/c1/5.PNG",
    ]
    found = chunks(pictures(tmp_path, names, has_splits=True))
    assert [(chunk.split, chunk.labels.tolist()) for chunk in found] == [
        ("test", [0, 1]),
        ("test", [1]),
        ("train", [0, 1]),
    ]
    assert [name for chunk in found for name in chunk.names] == [name for name in names if "notes" not in name]
    assert found[2].encoded == [picture(3), picture(5)]


def test_a_chunk_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_module, "MAX_CHUNK_BYTES", len(picture(0)))
    found = chunks(pictures(tmp_path, ["c0/1.png", "c1/2.png"], has_splits=False), 99)
    assert [len(chunk.labels) for chunk in found] == [1, 1]


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_file_is_detected_by_its_digest(tmp_path: Path, damage: str) -> None:
    raw = idx(tmp_path)
    content = bytearray((tmp_path / "i").read_bytes())
    content[-1] ^= 1
    os.remove(tmp_path / "i")
    if damage == "flip":
        (tmp_path / "i").write_bytes(content)
    with pytest.raises(UserError, match=r"i is missing or differs from its digest in raw\.json; download it again"):
        chunks(raw)


def test_a_file_is_hashed_again_only_if_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, hashed = idx(tmp_path), list[str]()

    def hashing(path: Path) -> str:
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(raw_module, "sha256_file", hashing)
    assert len(chunks(raw)) == len(chunks(raw)) and sorted(hashed) == ["i", "l"]
    content = (tmp_path / "i").read_bytes()
    (tmp_path / "i").write_bytes(content[:-1] + b"?")
    os.utime(tmp_path / "i", (1, 1))  # or the time might be that of the first writing
    with pytest.raises(UserError, match=r"i is missing or differs from its digest in raw\.json"):
        chunks(raw)
    (tmp_path / "i").write_bytes(content)
    os.utime(tmp_path / "i", (2, 2))
    assert chunks(raw)


def test_the_document_describes_the_files(tmp_path: Path) -> None:
    raw = idx(tmp_path)
    assert (raw.name, raw.source, raw.kind, raw.classes, raw.counts) == ("n", "s", "idx", ["c0", "c1"], {"train": 5})
    assert raw.document.seconds == {"download": 0}
    assert [file.bytes for file in raw.document.files] == [16 + 80, 8 + 5]


def test_the_digest_covers_the_content(tmp_path: Path) -> None:
    digests = []
    for name, labels in (("a", LABELS), ("b", LABELS), ("c", LABELS[::-1])):
        (tmp_path / name).mkdir()
        digests.append(idx(tmp_path / name, labels=labels).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_folder_without_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raw\.json is missing"):
        open_raw(tmp_path)
