"""The metrics of a classifier, against hand calculations and scikit-learn: pytest tests/evaluation/test_metrics.py"""

from typing import Any

import numpy as np
import pytest

from components.shared.evaluation import metrics
from components.shared.evaluation.mcnemar import mcnemar

RANDOM = np.random.default_rng(0)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(8, 10, 0.49016, 0.94331), (10, 10, 0.72247, 1.0), (0, 10, 0.0, 0.27753), (9915, 10_000, 0.98950, 0.99312)],
)
def test_wilson_interval_matches_the_tables(correct: int, total: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize(
    ("n01", "n10", "p_value"),
    [
        (0, 0, 1),
        (5, 5, 1),
        (1, 0, 1),
        (0, 6, 2 / 64),
        (8, 1, 20 / 512),
        (25, 10, 0.016673847800),
        (2000, 1000, 1.0090148628e-75),
    ],
)
def test_mcnemar_is_the_binomial_test_of_discordant_images(n01: int, n10: int, p_value: float) -> None:
    both = [True] * 7 + [False] * 3
    first, second = np.array([False] * n01 + [True] * n10 + both), np.array([True] * n01 + [False] * n10 + both)
    found = mcnemar(first, second)
    assert (found.n01, found.n10) == (n01, n10)
    assert found.p_value == pytest.approx(p_value, rel=1e-9)


def test_class_scores_of_a_class_never_predicted_are_zero() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    scores = metrics.class_scores(labels, predicted, 3)
    assert scores.precision == pytest.approx([2 / 4, 1 / 2, 0])
    assert scores.recall == pytest.approx([2 / 3, 1 / 2, 0])
    assert scores.f1 == pytest.approx([4 / 7, 1 / 2, 0])


def test_confusion_matrix_has_true_classes_as_rows() -> None:
    matrix = metrics.confusion_matrix(np.array([0, 0, 2]), np.array([0, 1, 1]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_log_loss_is_the_mean_negative_logarithm() -> None:
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
    assert metrics.log_loss(np.array([0, 1]), probabilities) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)


def test_bins_are_open_below_and_closed_above() -> None:
    edges: Any = np.arange(1, 16) / 15  # float64, which hits the edges exactly
    bins = metrics.reliability(edges, np.ones(15, bool))
    assert [b.images for b in bins] == [1] * 15
    assert all(b.low < b.confidence <= b.high + 1e-12 for b in bins)


def test_a_confidence_of_one_lies_in_the_last_bin() -> None:
    (only,) = metrics.reliability(np.ones(4, np.float32), np.ones(4, bool))
    assert (only.high, only.images, only.accuracy) == (1, 4, 1)


def test_the_area_under_the_roc_curve_is_that_of_all_pairs() -> None:
    labels = RANDOM.integers(0, 3, 40)
    probabilities = softmax(RANDOM.normal(size=(40, 3)) + np.eye(3)[labels])
    fpr, tpr, _ = metrics.roc_curve(labels, probabilities)
    right = np.eye(3, dtype=bool)[labels]
    wins = probabilities[right][:, None] > probabilities[~right]
    assert np.trapezoid(tpr, fpr) == pytest.approx(wins.mean(), abs=2e-3)


@pytest.mark.parametrize("num_classes", [2, 100])
def test_roc_curve_is_short_and_goes_from_corner_to_corner(num_classes: int) -> None:
    labels = RANDOM.integers(0, num_classes, 2000)
    curve = metrics.roc_curve(labels, softmax(RANDOM.normal(size=(2000, num_classes)) + np.eye(num_classes)[labels]))
    fpr, tpr, thresholds = curve
    assert 100 < len(fpr) == len(tpr) == len(thresholds) <= 200
    assert np.isfinite(curve).all() and all(type(value) is float for values in curve for value in values)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all() and (np.diff(thresholds) < 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "num_classes", "scale", "step"),
    [(2, 2, 1, 0), (10_000, 10, 3, 0), (2000, 100, 2, 0), (3000, 3, 1, 0.25), (50, 7, 0, 1), (1000, 2, 40, 10)],
    ids=["tiny", "ten classes", "many classes", "ties", "all equal", "certain"],
)
def test_metrics_equal_scikit_learn_bit_by_bit(images: int, num_classes: int, scale: float, step: float) -> None:
    from sklearn import metrics as sklearn  # which takes a second

    labels = np.arange(images) % num_classes
    logits = scale * (RANDOM.normal(size=(images, num_classes)) + np.eye(num_classes)[labels])
    probabilities = softmax(np.round(logits / step) * step if step else logits)
    predicted, names = probabilities.argmax(axis=1), range(num_classes)
    expected = sklearn.precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0)
    for found, wanted in zip(metrics.class_scores(labels, predicted, num_classes), expected, strict=False):
        assert np.array_equal(found, wanted)
    matrix = metrics.confusion_matrix(labels, predicted, num_classes)
    assert np.array_equal(matrix, sklearn.confusion_matrix(labels, predicted, labels=names))
    assert metrics.log_loss(labels, probabilities) == sklearn.log_loss(labels, probabilities, labels=names)
    fpr, tpr, thresholds = sklearn.roc_curve(np.eye(num_classes)[labels].ravel(), probabilities.ravel())
    thresholds = np.minimum(thresholds, np.nextafter(1, 2))  # instead of infinity
    assert metrics.roc_curve(labels, probabilities, points=10**6) == (fpr.tolist(), tpr.tolist(), thresholds.tolist())
