"""The reference for drift: its statistics by hand, and that it does not depend on how the split is cut."""

import numpy as np
import pytest

from components.shared.prediction.reference import MAX_VECTORS, Histogram, reference, statistics_of, vectors_of

RANDOM = np.random.default_rng(0)
CLASSES = ["a", "b", "c"]


def _inputs(count: int, shape: tuple[int, ...] = (3, 20, 20)) -> tuple[np.ndarray, np.ndarray]:
    probabilities = RANDOM.dirichlet(np.ones(3), count).astype(np.float32)
    return RANDOM.integers(0, 256, (count, *shape), dtype=np.uint8), probabilities


def test_the_statistics_of_an_image_by_hand() -> None:
    image = np.zeros((1, 3, 16, 16), np.uint8)
    image[0, 0, :, 8:] = 255  # the right half is red
    row = vectors_of(image, np.array([[0.5, 0.5, 0]], np.float32))[0]
    found = dict(zip(statistics_of(3), row.tolist(), strict=False))
    expected = {
        "brightness": 1 / 6,
        "contrast": 1 / 6,
        "sharpness": (1 / 3) / 15 / 2,  # one edge of 15 neighbours in a row, none in a column
        "saturation": 0.5,
        "confidence": 0.5,
        "entropy": 0.69315,
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert np.allclose(row[len(found) :].reshape(8, 8), [[0] * 4 + [1 / 3] * 4] * 8, atol=1e-6)


def test_a_gray_image_has_no_saturation() -> None:
    assert "saturation" not in statistics_of(1)
    assert vectors_of(*_inputs(2, (1, 28, 28))).shape == (2, len(statistics_of(1)) + 64)


def test_the_reference_does_not_depend_on_the_parts() -> None:
    images, probabilities = _inputs(MAX_VECTORS + 500)
    whole, vectors = reference([(images, probabilities)], CLASSES)
    parts = [(images[i : i + 300], probabilities[i : i + 300]) for i in range(0, len(images), 300)]
    again, same = reference(parts, CLASSES)
    assert whole == again and np.array_equal(vectors, same) and len(vectors) == MAX_VECTORS
    assert whole.predicted == np.bincount(probabilities.argmax(axis=1)).tolist()
    assert len(whole.columns) == vectors.shape[1]
    for histogram in whole.statistics.values():
        assert len(histogram.counts) == 10 and max(histogram.counts) - min(histogram.counts) <= 2


def test_a_frequent_value_has_a_bin_of_its_own() -> None:
    images, probabilities = np.full((50, 1, 8, 8), 7, np.uint8), np.tile(np.array([1, 0, 0], np.float32), (50, 1))
    document, _ = reference([(images, probabilities)], CLASSES)
    assert document.statistics["brightness"].counts == [0, 50, 0]
    values = np.array([6 / 255, 7 / 255, 8 / 255, 1], np.float32)
    assert document.statistics["brightness"].count(values).tolist() == [1, 1, 2]


def test_a_value_at_an_edge_lies_above_it() -> None:
    histogram = Histogram(edges=[1.0, 2.0], counts=[0, 0, 0])
    assert histogram.count(np.array([0, 1, 1.5, 2, 9], np.float32)).tolist() == [1, 2, 2]
