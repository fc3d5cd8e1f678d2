"""The metrics of a classifier's probabilities: pure functions on arrays, equal to scikit-learn's bit by bit.

They need NumPy alone: importing scikit-learn takes longer than computing them.

Throughout, `probabilities` are float32, N x classes; `labels` and `predicted` are int64, N.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.data.dataset import Labels
from components.shared.evaluation.calibration import expected_calibration_error
from components.shared.evaluation.document import Bin, ClassMetrics, Metrics

Probabilities = NDArray[np.float32]

BINS = 15
Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


class ClassScores(NamedTuple):
    """Precision, recall and F1 of each class (float64, classes), 0 where nothing was predicted as the class."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def measure(probabilities: Probabilities, labels: Labels, classes: Sequence[str]) -> Metrics:
    """Return all figures of a classifier."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    correct = predicted == labels
    low, high = wilson_interval(int(correct.sum()), len(labels))
    scores = class_scores(labels, predicted, len(classes))
    matrix = confusion_matrix(labels, predicted, len(classes))
    columns = zip(classes, matrix.sum(axis=1).tolist(), *(figures.tolist() for figures in scores), strict=True)
    names = ("class", "images", *scores._fields)
    return Metrics(
        images=len(labels),
        accuracy=float(correct.mean()),
        accuracy_low=low,
        accuracy_high=high,
        weakest_recall=float(scores.recall.min()),
        macro_f1=float(scores.f1.mean()),
        log_loss=log_loss(labels, probabilities),
        expected_calibration_error=expected_calibration_error(confidence, correct),
        classes=list(classes),
        per_class=[ClassMetrics(**dict(zip(names, column, strict=True))) for column in columns],
        confusion_matrix=matrix.tolist(),
        reliability=reliability(confidence, correct),
    )


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share that was observed as `correct` of `total`.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    share, z2 = correct / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * (share * (1 - share) / total + z2 / (4 * total**2)) ** 0.5 / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def class_scores(labels: Labels, predicted: Labels, num_classes: int) -> ClassScores:
    """Return precision, recall and F1 of every class; each class has at least one image."""
    matrix = confusion_matrix(labels, predicted, num_classes)
    correct, images, predictions = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    assert images.all(), "a class without a test image has no recall"
    # If a class is never predicted, none is correct either: 0 / 1.
    return ClassScores(correct / np.maximum(predictions, 1), correct / images, 2 * correct / (images + predictions))


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> NDArray[np.int64]:
    """Return counts (int64, classes x classes): a row for each true class, a column for each predicted one."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean negative natural logarithm of the true class's probability."""
    smallest = np.finfo(probabilities.dtype).eps  # as in scikit-learn, so that a 0 does not make it infinite
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], smallest, 1 - smallest)).mean())


def reliability(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> list[Bin]:
    """Return the non-empty ones of 15 bins of equal width, each open below and closed above."""
    edges = np.linspace(0, 1, BINS + 1)
    numbers = np.digitize(confidence, edges[1:-1], right=True)
    return [
        Bin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            images=int(inside.sum()),
            confidence=float(confidence[inside].mean(dtype=np.float64)),
            accuracy=float(correct[inside].mean()),
        )
        for number in range(BINS)
        if (inside := numbers == number).any()
    ]


def roc_curve(
    labels: Labels, probabilities: Probabilities, points: int = 200
) -> tuple[list[float], list[float], list[float]]:
    """Return false and true positive rates and their thresholds, every class against the rest, micro-averaged.

    There are at most `points`, evenly spaced along the curve, including its two ends; all are finite.
    """
    is_class = (labels[:, None] == np.arange(probabilities.shape[1])).ravel()
    order = np.argsort(-probabilities, axis=None, kind="stable")
    scores = probabilities.ravel()[order]
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of the runs of equal scores
    true = np.cumsum(is_class[order])[ends]
    false = 1 + ends - true
    is_corner = np.r_[True, (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), True][-len(ends) :]
    fpr, tpr = (np.r_[0, counts[is_corner]] / counts[-1] for counts in (false, true))
    thresholds = np.r_[np.nextafter(1, 2), scores[ends][is_corner].astype(np.float64)]  # the first is above all scores
    length = fpr + tpr  # of the curve so far: it climbs in steps
    chosen = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)))
    return fpr[chosen].tolist(), tpr[chosen].tolist(), thresholds[chosen].tolist()
