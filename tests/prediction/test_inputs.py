"""The pictures to predict are prepared as in training, by the package's word alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.shared.core.document import ValueRange
from components.shared.core.errors import UserError
from components.shared.data.decode import decode
from components.shared.data.layout.reading import Reading
from components.shared.data.raw import write_raw
from components.shared.data.sources.schemes import open_source
from components.shared.prediction.inputs import Inputs, gray
from tests.prediction.programs import CLASSES
from tests.small_packages import package_of, write_dataset

RANDOM = np.random.default_rng(0)


def fetched(pictures: Path, folder: Path) -> Path:
    """Fetch pictures with or without labels as raw data."""
    folder.mkdir()
    found = open_source(str(pictures)).fetch(folder, Reading(needs_labels=False))
    write_raw(folder, source=str(pictures), version="1", seconds=0.0, **found)
    return folder


def _save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path)


def test_colours_become_gray_as_pillow_converts_them() -> None:
    images = RANDOM.integers(0, 256, (5, 3, 40, 40), dtype=np.uint8)
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in images]
    assert np.array_equal(gray(images)[:, 0], expected)


def test_pictures_of_any_size_and_mode_fit_the_model(tmp_path: Path) -> None:
    _save(tmp_path / "pictures/a.png", RANDOM.integers(0, 256, (50, 30, 3), dtype=np.uint8))
    _save(tmp_path / "pictures/b.png", RANDOM.integers(0, 256, (8, 8), dtype=np.uint8))
    (tmp_path / "pictures/c.png").write_bytes(b"\x89PNG\r\n\x1a\n but nothing more")
    raw = fetched(tmp_path / "pictures", tmp_path / "raw")
    for channels in (1, 3):
        package = package_of(classes=CLASSES, image_shape=(channels, 16, 16))
        (batch,) = Inputs(raw, package).batches()
        assert batch.names == ["a.png", "b.png", "c.png"] and batch.labels == [None] * 3
        assert batch.images.shape == (2, channels, 16, 16)
        assert [error is None for error in batch.errors] == [True, True, False]
        colour, small = (decode((tmp_path / f"pictures/{name}.png").read_bytes(), 16) for name in "ab")
        expected = [gray(colour[None])[0], small] if channels == 1 else [colour, np.repeat(small, 3, axis=0)]
        assert np.array_equal(batch.images, expected)


def test_wide_pictures_are_scaled_by_the_bounds_of_the_package(tmp_path: Path) -> None:
    _save(tmp_path / "pictures/a.png", np.full((16, 16), 2000, np.uint16))
    raw = fetched(tmp_path / "pictures", tmp_path / "raw")
    bounds = ValueRange(low=1000, high=3000)
    (batch,) = Inputs(raw, package_of(classes=CLASSES, image_shape=(1, 16, 16), value_range=bounds)).batches()
    assert (batch.images == 128).all()
    (batch,) = Inputs(raw, package_of(classes=CLASSES, image_shape=(1, 16, 16))).batches()
    assert batch.errors == ["its numbers are of type uint16, and the model was trained on pictures of 8 bits"]


def test_labels_are_used_where_there_are_some(tmp_path: Path) -> None:
    for name in ("train/dark/1.png", "train/light/2.png", "test/3.png"):
        _save(tmp_path / "pictures" / name, RANDOM.integers(0, 256, (16, 16), dtype=np.uint8))
    raw = fetched(tmp_path / "pictures", tmp_path / "raw")
    inputs = Inputs(raw, package_of(classes=CLASSES, image_shape=(1, 16, 16)))
    (batch,) = inputs.batches()
    assert dict(zip(batch.names, batch.labels, strict=True)) == {
        "test/3.png": None,
        "train/dark/1.png": "dark",
        "train/light/2.png": "light",
    }
    assert inputs.count == 3


def test_some_pictures_are_found_again_by_their_numbers(tmp_path: Path) -> None:
    for number in range(7):
        _save(tmp_path / f"pictures/{number}.png", np.full((16, 16), number, np.uint8))
    raw = fetched(tmp_path / "pictures", tmp_path / "raw")
    inputs = Inputs(raw, package_of(classes=CLASSES, image_shape=(1, 16, 16)))
    inputs.size = 3
    assert [len(batch.names) for batch in inputs.batches()] == [3, 3, 1]
    assert [len(batch.names) for batch in inputs.batches(first=4)] == [3]
    assert [int(batch.images[0, 0, 0, 0]) for batch in inputs.take([0, 2, 3, 6])] == [0, 2, 3, 6]


def test_a_prepared_dataset_must_fit_the_model(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", 10, CLASSES, side=16)
    (batch, *_) = Inputs(folder, package_of(classes=CLASSES, image_shape=(1, 16, 16))).batches()
    assert batch.names[0] == "train/0" and batch.labels[0] in CLASSES
    with pytest.raises(UserError, match="holds images of 1 x 16 x 16, and the model wants 1 x 32 x 32; give the data"):
        Inputs(folder, package_of(classes=CLASSES, image_shape=(1, 32, 32)))
