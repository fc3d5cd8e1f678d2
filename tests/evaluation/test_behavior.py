"""The tests of a classifier's behavior: pytest tests/evaluation/test_behavior.py"""

import numpy as np
import pytest

from components.shared.data.dataset import Dataset, Images, open_dataset
from components.shared.evaluation.behavior import CHANGES, observe
from components.shared.parameters.evaluation import BEHAVIOR
from tests.dataset_writer import DatasetWriter


def changed(name: str, images: Images) -> Images:
    change = CHANGES[name]
    result = change.apply(images, change.pixels(images.shape[-1]), np.random.default_rng(0))
    assert result.shape == images.shape and result.dtype == np.uint8
    return result


def stroke(width: int, size: int = 32) -> Images:
    """A vertical stroke, from edge to edge, on black."""
    images = np.zeros((1, 1, size, size), np.uint8)
    images[:, :, :, size // 4 : size // 4 + width] = 200
    return images


def by_brightness(images: Images) -> np.ndarray:
    """Classify images as dark or bright, by their mean."""
    bright = images.mean(axis=(1, 2, 3), dtype=np.float32) / 255
    return np.column_stack([1 - bright, bright])


@pytest.fixture(scope="module")
def grays(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """300 test images, dark and bright ones in turn; every tenth has the label of the other."""
    folder = tmp_path_factory.mktemp("grays")
    counts = {"train": 2, "val": 2, "test": 300}
    writer = DatasetWriter(folder, classes=["dark", "bright"], image_shape=(1, 16, 16), counts=counts, shard_bytes=9999)
    numbers = np.arange(300)
    for name in ("train", "val"):
        writer.append(name, np.zeros((2, 1, 16, 16), np.uint8), numbers[:2])
    images = np.where(numbers % 2, 220, 30).astype(np.uint8)[:, None, None, None].repeat(16, 2).repeat(16, 3)
    writer.append("test", images, np.where(numbers % 10 == 0, 1, 0) ^ numbers % 2)
    writer.finish(name="grays", seconds={})
    return open_dataset(folder)


def test_the_tests_are_those_that_can_have_a_threshold() -> None:
    assert tuple(CHANGES) == BEHAVIOR


def test_a_shift_moves_to_all_eight_neighbors() -> None:
    images = np.zeros((100, 1, 32, 32), np.uint8)
    images[:, :, 16, 16] = 255
    *_, rows, columns = np.nonzero(changed("shifted", images))
    assert len(rows) == 100
    assert {*zip((rows - 16).tolist(), (columns - 16).tolist(), strict=True)} == {
        (y, x) for y in (-2, 0, 2) for x in (-2, 0, 2) if (y, x) != (0, 0)
    }
    assert (changed("shifted", np.full((9, 3, 32, 32), 77, np.uint8)) == 77).all(), "no dark border comes in"


@pytest.mark.parametrize(("size", "pixels"), [(32, 1), (28, 1), (64, 2), (224, 7), (8, 1)])
def test_strokes_get_thinner_in_proportion_to_the_image(size: int, pixels: int) -> None:
    thinned = changed("thinned", stroke(pixels + 2, size))
    assert set((thinned > 0).sum(axis=3).ravel().tolist()) == {2}


def test_dark_strokes_on_light_images_get_thinner_too() -> None:
    thinned = changed("thinned", 255 - stroke(4))
    assert set((thinned < 255).sum(axis=3).ravel().tolist()) == {3}


def test_the_other_changes_do_what_they_say() -> None:
    images = np.full((50, 3, 32, 32), 100, np.uint8)
    assert (changed("inverted", images) == 155).all()
    noise = changed("noisy", images).astype(float) - 100
    assert noise.std() == pytest.approx(0.1 * 255, rel=0.01) and noise.mean() == pytest.approx(0, abs=0.2)
    occluded = changed("occluded", images)
    assert ((occluded == 128).sum(axis=(2, 3)) == 64).all() and ((occluded == 100).sum(axis=(2, 3)) == 960).all()
    corners = (occluded == 128).any(axis=(1, 3)).argmax(axis=1)
    assert len(set(corners.tolist())) > 10, "squares lie anywhere"


def test_what_is_observed_is_what_the_classifier_does(grays: Dataset) -> None:
    images, labels = grays.load("test")
    seen: list[int] = []

    def classify(part: Images) -> np.ndarray:
        seen.append(len(part))
        return by_brightness(part)

    found = observe(classify, grays, by_brightness(images), labels, images=200).behavior
    assert (found.images, sum(seen), len(found.tests)) == (200, 1000, 5)
    by_name = {test.name: test for test in found.tests}
    assert found.accuracy == pytest.approx(0.9, abs=0.05)
    for name in ("shifted", "thinned", "noisy", "occluded"):
        assert (by_name[name].unchanged, by_name[name].accuracy) == (1, found.accuracy)
    assert by_name["inverted"].unchanged == 0
    assert by_name["inverted"].accuracy == pytest.approx(1 - found.accuracy)
    assert by_name["shifted"].change == "moved by 1 pixel in one of eight directions"


def test_a_test_does_not_depend_on_the_others(grays: Dataset) -> None:
    images, labels = grays.load("test")
    kept: dict[int, list[Images]] = {1: [], 2: []}
    for names in (["noisy"], ["occluded", "noisy"]):

        def classify(part: Images, names: list[str] = names) -> np.ndarray:
            kept[len(names)].append(part)
            return by_brightness(part)

        observed = observe(classify, grays, by_brightness(images), labels, images=2000, names=names)
        assert observed.behavior.images == 300 and list(observed.examples) == names
    assert np.array_equal(np.concatenate(kept[1]), np.concatenate(kept[2][1::2])), "the same noise"


def test_few_thresholds_give_few_reasons(grays: Dataset) -> None:
    images, labels = grays.load("test")
    found = observe(by_brightness, grays, by_brightness(images), labels, images=300).behavior
    assert found.reasons({}) == []
    assert found.reasons({"shifted": 0.9, "noisy": 0.5}) == [], "exactly on a threshold is enough"
    assert found.reasons({"inverted": 0.5, "noisy": 0.91}) == [
        "accuracy 0.1 on inverted images is below 0.5 (min_behavior)",
        "accuracy 0.9 on noisy images is below 0.91 (min_behavior)",
    ]
