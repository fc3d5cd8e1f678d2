"""How good a classifier's probabilities are: pure functions on arrays.

Throughout, `probabilities` are float32, N x classes; `labels` and `predicted` are int64, N.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]

BINS = 15
Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


class ClassScores(NamedTuple):
    """Precision, recall and F1 of each class (float64, classes), 0 where nothing was predicted as the class."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


class Bin(NamedTuple):
    """The predictions whose confidence lies in one interval: how many, their mean confidence, their accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of which `right` of `total` were observed.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    share, z2 = right / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * (share * (1 - share) / total + z2 / (4 * total**2)) ** 0.5 / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


class McNemar(NamedTuple):
    """Two classifiers on the same images: `n01` of them the second alone has right, `n10` the first alone.

    `p_value` is the probability of a difference as large as theirs, or larger, if both were equally good.
    """

    n01: int
    n10: int
    p_value: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Compare two classifiers by the images that each has right (bool, N): exact, two-sided.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947); on so few images as two good classifiers differ in, by the binomial distribution itself.
    """
    n01, n10 = int((~first & second).sum()), int((first & ~second).sum())
    discordant, tail, ways = n01 + n10, 0, 1
    for successes in range(min(n01, n10) + 1):
        tail += ways  # of all 2 ** discordant outcomes, those with so many successes or fewer
        ways = ways * (discordant - successes) // (successes + 1)
    return McNemar(n01, n10, min(1.0, 2 * tail / 2**discordant))


def class_scores(labels: Labels, predicted: Labels, num_classes: int) -> ClassScores:
    """Precision, recall and F1 of every class; each class has at least one image."""
    assert np.bincount(labels, minlength=num_classes).all(), "a class without a test image has no recall"
    scores = metrics.precision_recall_fscore_support(labels, predicted, labels=range(num_classes), zero_division=0)
    return ClassScores(*scores[:3])


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> NDArray[np.int64]:
    """Counts (int64, classes x classes): a row for each true class, a column for each predicted one."""
    matrix: NDArray[np.int64] = metrics.confusion_matrix(labels, predicted, labels=range(num_classes))
    return matrix


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """The mean negative natural logarithm of the true class's probability."""
    return float(metrics.log_loss(labels, probabilities, labels=range(probabilities.shape[1])))


def reliability(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> list[Bin]:
    """The predictions in 15 bins of equal width, each open below and closed above; empty ones are left out."""
    edges = np.linspace(0, 1, BINS + 1)
    places = np.digitize(confidence, edges[1:-1], right=True)
    return [
        Bin(
            low=float(edges[place]),
            high=float(edges[place + 1]),
            images=int(inside.sum()),
            confidence=float(confidence[inside].mean(dtype=np.float64)),
            accuracy=float(right[inside].mean()),
        )
        for place in range(BINS)
        if (inside := places == place).any()
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance of confidence from accuracy over the bins, weighted by their sizes.

    Equation 3 of Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    return sum(b.images * abs(b.accuracy - b.confidence) for b in bins) / sum(b.images for b in bins)


def roc_curve(
    labels: Labels, probabilities: Probabilities, points: int = 200
) -> tuple[list[float], list[float], list[float]]:
    """False and true positive rates and their thresholds, every class against the rest, micro-averaged.

    At most `points` of them, evenly spaced along the curve, the two ends included; all are finite.
    """
    is_class = labels[:, None] == np.arange(probabilities.shape[1])
    fpr, tpr, thresholds = metrics.roc_curve(is_class.ravel(), probabilities.ravel())
    way = fpr + tpr  # the length of the curve so far: it climbs in steps
    kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], points)))
    above_all = np.nextafter(1, 2)  # in place of the first threshold, infinity
    return fpr[kept].tolist(), tpr[kept].tolist(), np.minimum(thresholds[kept], above_all).tolist()
