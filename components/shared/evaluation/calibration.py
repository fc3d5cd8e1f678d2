"""How far the confidence of a classifier is from its accuracy, before and after its temperature was applied."""

import numpy as np
from numpy.typing import NDArray

from components.shared.core.document import Part, Share, Size
from components.shared.data.dataset import Labels
from components.shared.models.document import Temperature

BINS = 15
RESAMPLES, RESAMPLED = 1000, 20_000_000  # at most, so many times, and so many images in all
LOW, HIGH = 2.5, 97.5  # percentiles: an interval of 95 %


class CalibrationError(Part):
    """The expected calibration error, and the 95 % interval of it that the bootstrap gives."""

    error: Share
    low: Share
    high: Share


class Calibration(Part):
    """The calibration of a classifier on the test split, in bins of as many images each."""

    bins: Size
    temperature: Temperature
    uncalibrated: CalibrationError  # with a temperature of 1
    calibrated: CalibrationError


def calibration(probabilities: NDArray[np.float32], labels: Labels, temperature: float) -> Calibration:
    """Return the calibration of `probabilities` (N x classes), whose logits were divided by `temperature`."""
    return Calibration(
        bins=BINS,
        temperature=temperature,
        uncalibrated=_error(_uncalibrated(probabilities, temperature), labels),
        calibrated=_error(probabilities, labels),
    )


def expected_calibration_error(confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> float:
    """Return the mean distance of confidence from accuracy over 15 bins of as many images each.

    Equation 3 of Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, with the bins
    of Nixon et al., "Measuring calibration in deep learning", CVPR Workshops 2019: nearly all images of a good
    classifier lie in the last one of bins of equal width.
    """
    order = np.argsort(confidence, kind="stable")
    return _distance(confidence[order].astype(np.float64) - correct[order])


def _distance(excess: NDArray[np.float64]) -> float:
    """Return the error of images in the order of their confidence, of which each has its excess over its accuracy."""
    sums = [float(part.sum()) for part in np.array_split(excess, BINS)]
    return sum(map(abs, sums)) / len(excess)


def _error(probabilities: NDArray[np.float32], labels: Labels) -> CalibrationError:
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(confidence, kind="stable")
    excess = confidence[order].astype(np.float64) - correct[order]
    random, count = np.random.default_rng(0), len(excess)
    resamples = max(1, min(RESAMPLES, RESAMPLED // count))
    drawn = (np.bincount(random.integers(count, size=count), minlength=count) for _ in range(resamples))
    low, high = np.percentile([_distance(np.repeat(excess, times)) for times in drawn], (LOW, HIGH))
    return CalibrationError(error=_distance(excess), low=float(low), high=float(high))


def _uncalibrated(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return what the softmax of the logits themselves gives."""
    if temperature == 1:
        return probabilities
    powers = probabilities.astype(np.float64) ** temperature
    softmax: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return softmax.astype(np.float32)
