"""The figures of parts of the test split: pytest tests/evaluation/test_slices.py"""

from pathlib import Path

import numpy as np
import pytest

from components.shared.core.files import sha256_file
from components.shared.data.dataset import INDEX, Dataset, open_dataset, write_document
from components.shared.data.preparation.rows import INDEX_COLUMNS, read_rows, write_rows
from components.shared.evaluation.metrics import wilson_interval
from components.shared.evaluation.slices import slices
from tests.dataset_writer import DatasetWriter


def dataset(folder: Path, brightness: list[int], labels: list[int]) -> Dataset:
    """A dataset whose test images each have one value in all pixels but one, in several shards."""
    folder.mkdir()
    counts = {"train": 2, "val": 2, "test": len(labels)}
    writer = DatasetWriter(folder, classes=["a", "b"], image_shape=(1, 2, 2), counts=counts, shard_bytes=16)
    for name in ("train", "val"):
        writer.append(name, np.zeros((2, 1, 2, 2), np.uint8), np.arange(2))
    images = np.array(brightness, np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3)
    images[:, :, 0, 0] = 0
    writer.append("test", images, np.array(labels))
    writer.finish(name="gray", seconds={})
    return open_dataset(folder)


def sure(classes: list[int], confidence: float = 0.75) -> np.ndarray:
    """Probabilities of predicted classes."""
    return np.where(np.eye(2)[classes] == 1, confidence, 1 - confidence).astype(np.float32)


def test_the_figures_are_those_of_each_class_and_each_third(tmp_path: Path) -> None:
    brightness = [200, 0, 80, 40, 160, 240, 120]
    labels = [0, 1, 0, 1, 0, 1, 1]
    data = dataset(tmp_path / "data", brightness, labels)
    found = slices(sure([0, 1, 1, 0, 0, 1, 1]), np.array(labels), data)  # wrong in those of 40 and 80
    a, b = found.by_class
    assert (a.name, a.images, a.accuracy, a.accuracy_low, a.accuracy_high) == ("a", 3, 2 / 3, *wilson_interval(2, 3))
    assert (b.name, b.images, b.accuracy) == ("b", 4, 3 / 4)
    # Each image has a bin of its own, so the error is the mean of 0.25 where it is right and 0.75 where it is wrong.
    assert b.expected_calibration_error == pytest.approx((3 * 0.25 + 0.75) / 4)
    assert [part.name for part in found.by_brightness] == ["darkest third", "middle third", "brightest third"]
    assert [(part.images, part.accuracy) for part in found.by_brightness] == [(3, 1 / 3), (2, 1), (2, 1)]
    ends = [(part.darkest, part.brightest) for part in found.by_brightness]
    assert ends == [
        pytest.approx((0.75 * low / 255, 0.75 * high / 255)) for low, high in ((0, 80), (120, 160), (200, 240))
    ]


def test_two_images_have_no_brightest_third(tmp_path: Path) -> None:
    found = slices(sure([0, 1]), np.arange(2), dataset(tmp_path / "data", [9, 3], [0, 1]))
    assert [(part.name, part.images) for part in found.by_brightness] == [("darkest third", 1), ("middle third", 1)]


def with_sizes(folder: Path, sizes: list[tuple[int, int]]) -> Dataset:
    """A dataset whose test images come from pictures of these widths and heights."""
    dataset(folder, [0] * len(sizes), [0] * (len(sizes) - 1) + [1])
    path = folder / INDEX
    rows = read_rows(path)
    for name, values in zip(("width", "height"), zip(*sizes, strict=True), strict=True):
        rows[name][rows["split"] == 2] = values
    write_rows(path, [rows], INDEX_COLUMNS)
    document = open_dataset(folder).document.model_copy(update={"index_sha256": sha256_file(path)})
    write_document(folder, document)
    return open_dataset(folder)


def test_the_thirds_by_size_are_of_the_pictures_in_the_source(tmp_path: Path) -> None:
    data = with_sizes(tmp_path / "data", [(40, 10), (3, 5), (7, 7), (100, 90), (6, 6), (50, 8)])
    found = slices(sure([0, 1, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 0, 1]), data)
    assert [(part.name, part.smallest, part.largest, part.accuracy) for part in found.by_size] == [
        ("smallest third", 15, 36, 0),
        ("middle third", 49, 400, 1),
        ("largest third", 400, 9000, 1),
    ]
    assert found.is_size_known


def test_pictures_of_one_size_have_no_thirds(tmp_path: Path) -> None:
    found = slices(sure([0, 1]), np.arange(2), with_sizes(tmp_path / "data", [(28, 28), (28, 28)]))
    assert found.is_size_known and not found.by_size


def test_sizes_that_nobody_noted_are_not_known(tmp_path: Path) -> None:
    data = with_sizes(tmp_path / "data", [(28, 28), (0, 0)])
    assert not slices(sure([0, 1]), np.arange(2), data).is_size_known
    earlier = data.document.model_copy(update={"index_sha256": ""})
    found = slices(sure([0, 1]), np.arange(2), Dataset(data.folder, earlier))
    assert not found.is_size_known and not found.by_size
