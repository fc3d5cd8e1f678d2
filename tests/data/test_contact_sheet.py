"""The contact sheet shows ten images of each of the first twenty classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.shared.data.contact_sheet import save_contact_sheet
from components.shared.data.dataset import Images, Labels, open_dataset
from tests.dataset_writer import DatasetWriter


def sheet(path: Path, classes: Sequence[str], images: Images, labels: Labels) -> Images:
    folder = path.with_name("dataset")
    folder.mkdir()
    counts = {"train": len(labels), "val": 0, "test": 0}
    writer = DatasetWriter(folder, classes=classes, image_shape=images.shape[1:], counts=counts, shard_bytes=9_999)
    writer.append("train", images, labels)
    writer.finish(name="small", seconds={})
    save_contact_sheet(open_dataset(folder), path)
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_each_class_has_a_row_of_its_images(tmp_path: Path) -> None:
    labels = np.array([0, 1] * 12)
    images = np.zeros((24, 3, 16, 16), np.uint8)
    images[labels == 1, 0] = 200  # red
    pixels = sheet(tmp_path / "samples.png", ["black", "red"], images, labels)
    red = (pixels == [200, 0, 0]).all(axis=2)
    assert red.sum() == 10 * 64 * 64
    assert not red[: len(pixels) // 2].any()


def test_large_images_and_many_classes_stay_small(tmp_path: Path) -> None:
    labels = np.arange(30)
    images = np.full((30, 1, 300, 300), 128, np.uint8)
    names = [f"a class with the rather long name {n} \u00e4\u6f22" for n in labels]
    assert sheet(tmp_path / "samples.png", names, images, labels).shape[0] == 20 * 68 + 4


@pytest.mark.slow
def test_long_name_is_cut_before_the_images(tmp_path: Path) -> None:
    images = np.full((1, 1, 8, 8), 255, np.uint8)
    pixels = sheet(tmp_path / "samples.png", ["W" * 1000], images, np.array([0]))
    assert (pixels[:, -10 * 68 :] == 255).all()
    assert 10 * 68 + 100 < pixels.shape[1] < 10 * 68 + 200
