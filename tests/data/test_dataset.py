"""The dataset format: a dataset is read as it was written, and damaged or forged ones are reported in one line."""

import copy
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json
from components.shared.data.dataset import SPLITS, DatasetDocument, Images, Labels, open_dataset
from tests.conftest import ROOT
from tests.dataset_writer import DatasetWriter

CLASSES = ["cat", "dog", "Käfer"]
SHAPE = (3, 4, 5)

Content = dict[str, tuple[Images, Labels]]  # of each split
Small = tuple[Path, Content]


def content(seed: int, counts: tuple[int, int, int]) -> Content:
    random = np.random.default_rng(seed)
    return {
        split: (
            random.integers(0, 256, (count, *SHAPE), dtype=np.uint8),
            random.integers(0, len(CLASSES), count, dtype=np.int64),
        )
        for split, count in zip(SPLITS, counts, strict=True)
    }


def write(
    folder: Path, splits: Content, *, shard_bytes: int = 10**6, block: int = 7, seconds: float = 0.5
) -> DatasetDocument:
    folder.mkdir()
    counts = {split: len(labels) for split, (_, labels) in splits.items()}
    writer = DatasetWriter(folder, classes=CLASSES, image_shape=SHAPE, counts=counts, shard_bytes=shard_bytes)
    for split, (images, labels) in splits.items():
        for start in range(0, len(labels), block):
            writer.append(split, images[start : start + block], labels[start : start + block])
    return writer.finish(name="small", seconds={"preprocess": seconds})


def assert_holds(folder: Path, splits: Content) -> None:
    dataset = open_dataset(folder)
    assert dataset.classes == CLASSES
    assert dataset.image_shape == SHAPE
    for split, (images, labels) in splits.items():
        found_images, found_labels = dataset.load(split)
        np.testing.assert_array_equal(found_images, images)
        np.testing.assert_array_equal(found_labels, labels)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small") / "dataset"
    splits = content(0, (9, 4, 5))
    write(folder, splits, shard_bytes=300)
    return folder, splits


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 40), *[st.integers(0, 40)] * 2),
    shard_bytes=st.integers(1, 3000),
    block=st.integers(1, 50),
)
def test_any_shard_size_round_trips_with_one_digest(
    tmp_path_factory: pytest.TempPathFactory, counts: tuple[int, int, int], shard_bytes: int, block: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    splits = content(1, counts)
    document = write(folder / "cut", splits, shard_bytes=shard_bytes, block=block)
    assert document.digest == write(folder / "whole", splits).digest
    assert_holds(folder / "cut", splits)
    shutil.rmtree(folder)


def test_shards_are_npy_files_of_the_given_size(tmp_path: Path) -> None:
    splits = content(2, (10, 1, 1))
    write(tmp_path / "dataset", splits, shard_bytes=4 * 60)
    sizes = [len(np.load(tmp_path / "dataset" / f"train-{n:05}.images.npy", allow_pickle=False)) for n in range(3)]
    assert sizes == [4, 4, 2]
    assert open_dataset(tmp_path / "dataset").counts == {"train": 10, "val": 1, "test": 1}


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.integers(0, 8)))
def test_images_are_taken_by_their_numbers(small: Small, numbers: list[int]) -> None:
    folder, splits = small
    found = open_dataset(folder).take("train", numbers)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, splits["train"][0][np.array(numbers, int)])


def test_digest_covers_only_the_content(tmp_path: Path) -> None:
    splits = content(3, (5, 5, 5))
    digest = write(tmp_path / "a", splits).digest
    assert write(tmp_path / "b", splits, seconds=1.5).digest == digest
    splits["val"][1][2] = (splits["val"][1][2] + 1) % 3
    assert write(tmp_path / "c", splits).digest != digest


def test_digest_of_a_split_covers_only_that_split(tmp_path: Path) -> None:
    splits = content(3, (5, 5, 5))
    before = write(tmp_path / "a", splits).splits
    splits["train"][0][0] ^= 1
    after = write(tmp_path / "b", splits, shard_bytes=100).splits
    assert {split for split in SPLITS if after[split].digest != before[split].digest} == {"train"}
    shown = write(tmp_path / "c", {**splits, "train": splits["test"]}).splits
    assert shown["train"].digest == after["test"].digest  # of the content, not of the split's name


@pytest.mark.parametrize("digest", [None, "", "a" * 64, "../../x"])
def test_wrong_digest_of_a_split_is_reported(small: Small, tmp_path: Path, digest: object) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    document = json.loads((folder / "dataset.json").read_bytes())
    document["splits"]["test"]["digest"] = digest
    forge(folder, document)
    with pytest.raises(UserError, match="splits"):
        open_dataset(folder)


def test_mean_and_std_match_numpys(tmp_path: Path) -> None:
    splits = content(4, (200, 9, 9))
    document = write(tmp_path / "dataset", splits)
    scaled = splits["train"][0] / 255
    np.testing.assert_allclose(document.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(document.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_blank_channel_has_std_one(tmp_path: Path) -> None:
    splits = content(5, (6, 1, 1))
    splits["train"][0][:, 1] = 77
    assert write(tmp_path / "dataset", splits).std[1] == 1.0


def test_class_counts_are_listed(tmp_path: Path) -> None:
    splits = content(6, (30, 10, 10))
    document = write(tmp_path / "dataset", splits)
    for split, (_, labels) in splits.items():
        assert document.splits[split].class_counts == np.bincount(labels, minlength=3).tolist()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_is_reported_or_harmless(small: Small, data: st.DataObject) -> None:
    folder, splits = small
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    flipped = bytes([original[position] ^ data.draw(st.integers(1, 255))])
    damaged = data.draw(
        st.sampled_from([original[:position], original[:position] + flipped + original[position + 1 :]])
    )
    try:
        path.write_bytes(damaged)
        assert_holds(folder, splits)
    except UserError as error:
        assert str(folder) in str(error)
    finally:
        path.write_bytes(original)


@pytest.mark.slow
def test_local_dataset_is_read_without_the_s3_client(small: Small) -> None:
    code = "import sys; from components.shared.data.dataset import open_dataset as o; o(sys.argv[1]).load('val')"
    code += "; print('minio' in sys.modules)"
    command = [sys.executable, "-c", code, str(small[0])]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("address", [None, "", 7, "s3://", "s3://bucket/../x", "file:///etc", ["s3://bucket"]])
def test_invalid_address_of_shards_is_reported(small: Small, tmp_path: Path, address: object) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    forge(folder, {**json.loads((folder / "dataset.json").read_bytes()), "shards": address})
    with pytest.raises(UserError, match="'shards'"):
        open_dataset(folder)


def test_missing_shard_is_reported(small: Small, tmp_path: Path) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    (folder / "test-00000.labels.npy").unlink()
    with pytest.raises(UserError, match=r"test-00000\.labels\.npy is missing"):
        open_dataset(folder).load("test")


def test_missing_document_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.json is missing"):
        open_dataset(tmp_path)


def forge(folder: Path, document: dict[str, Any]) -> None:
    """Write a document with a valid checksum, as an attacker would."""
    document = {key: value for key, value in document.items() if key != "checksum"}
    (folder / "dataset.json").write_text(json.dumps({**document, "checksum": sha256_json(document)}))


def shard_of(document: dict[str, Any]) -> dict[str, Any]:
    shard: dict[str, Any] = document["splits"]["train"]["shards"][0]
    return shard


HOSTILE_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    1e300,
    "",
    "../../etc/passwd",
    [],
    [[]],
    [0.0, -1.0, 0.0],
    {},
    {"count": 1},
]


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=repr)
@pytest.mark.parametrize("field", ["classes", "image_shape", "mean", "std", "splits", "format"])
def test_field_of_a_wrong_type_is_reported(small: Small, tmp_path: Path, field: str, value: object) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    document = json.loads((folder / "dataset.json").read_bytes())
    for forged in ({**document, field: value}, {key: v for key, v in document.items() if key != field}):
        forge(folder, forged)
        with pytest.raises(UserError, match=field):
            open_dataset(folder)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_forged_value_is_reported_or_harmless(small: Small, data: st.DataObject) -> None:
    folder, _ = small
    original = (folder / "dataset.json").read_bytes()
    document = json.loads(original)
    node: Any = document
    while isinstance(node, (dict, list)) and node:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        parent, node = node, node[key]
        if data.draw(st.integers(0, 3)) == 0:
            break
    parent[key] = copy.deepcopy(data.draw(st.sampled_from(HOSTILE_VALUES)))
    try:
        forge(folder, document)
        for split in SPLITS:
            open_dataset(folder).load(split)
    except UserError:
        pass
    finally:
        (folder / "dataset.json").write_bytes(original)


@pytest.mark.parametrize(
    "path", ["../train-00000.images.npy", "/etc/passwd", "sub/train-00000.images.npy", ".", "a\0b"]
)
def test_path_out_of_the_folder_is_reported(small: Small, tmp_path: Path, path: str) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    document = json.loads((folder / "dataset.json").read_bytes())
    shutil.copy(folder / "train-00000.images.npy", tmp_path)
    shard_of(document)["images"]["path"] = path
    forge(folder, document)
    with pytest.raises(UserError, match="splits"):
        open_dataset(folder)


OBJECTS = np.array([{"a": 1}] * 5, dtype=object)
FOREIGN_ARRAYS: list[NDArray[Any]] = [
    OBJECTS,
    np.zeros(5, ">i8"),
    np.zeros(5),
    np.zeros((5, 1), "<i8"),
    np.zeros(4, "<i8"),
]


@pytest.mark.parametrize("array", FOREIGN_ARRAYS, ids=["pickled", "big-endian", "float", "shape", "length"])
def test_shard_of_another_type_is_reported(small: Small, tmp_path: Path, array: NDArray[Any]) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    path = folder / "train-00000.labels.npy"
    np.save(path, array, allow_pickle=True)
    document = json.loads((folder / "dataset.json").read_bytes())
    content = path.read_bytes()
    shard_of(document)["labels"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    forge(folder, document)
    with pytest.raises(UserError, match="not a NumPy array of shape"):
        open_dataset(folder).load("train")


def test_labels_beyond_the_classes_are_reported(tmp_path: Path) -> None:
    splits = content(7, (5, 2, 2))
    write(tmp_path / "dataset", splits)
    document = json.loads((tmp_path / "dataset" / "dataset.json").read_bytes())
    for split in document["splits"].values():
        split["class_counts"] = [split["count"]]
    forge(tmp_path / "dataset", {**document, "classes": ["cat"]})
    with pytest.raises(UserError, match="name no class"):
        open_dataset(tmp_path / "dataset").load("train")


def test_std_of_zero_is_reported(small: Small, tmp_path: Path) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    forge(folder, {**json.loads((folder / "dataset.json").read_bytes()), "std": [0.5, 0.0, 0.5]})
    with pytest.raises(UserError, match="std"):
        open_dataset(folder)


def test_counts_that_do_not_add_up_are_reported(small: Small, tmp_path: Path) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    document = json.loads((folder / "dataset.json").read_bytes())
    document["splits"]["val"]["class_counts"][0] += 1
    forge(folder, document)
    with pytest.raises(UserError, match="splits"):
        open_dataset(folder)


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "val", "test", "more")])
def test_other_splits_than_three_are_reported(small: Small, tmp_path: Path, splits: tuple[str, ...]) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    document = json.loads((folder / "dataset.json").read_bytes())
    found = {name: document["splits"].get(name, document["splits"]["test"]) for name in splits}
    digest = sha256_json({name: split["digest"] for name, split in found.items()})
    forge(folder, {**document, "splits": found, "digest": digest})
    with pytest.raises(UserError, match="splits"):
        open_dataset(folder)


def test_document_with_nan_is_reported(small: Small, tmp_path: Path) -> None:
    folder = shutil.copytree(small[0], tmp_path / "copy")
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace('"name": "small"', '"name": NaN'))
    with pytest.raises(UserError, match="not a JSON document"):
        open_dataset(folder)
