"""Temperature scaling: one number that turns the logits of a trained network into calibrated probabilities.

Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2.
"""

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.2, 5.0  # temperatures
FEWEST = 200  # images to fit a temperature to
ROWS = 4096  # at a time, of which a copy in float64 is made
DIGITS = 4  # decimals that are kept


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature in [0.2, 5] by which divided logits (N x classes) have the least log loss.

    The log loss is convex in the inverse of the temperature: its derivative, of which the root is searched by
    bisection, is the mean difference of the expected logit from that of the true class.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST
    while high - low > 10.0**-DIGITS / 2 * low**2:
        middle = (low + high) / 2
        if _slope(logits, labels, middle) > 0:
            high = middle
        else:
            low = middle
    return round(2 / (low + high), DIGITS)


def _slope(logits: NDArray[np.float32], labels: NDArray[np.int64], inverse: float) -> float:
    """Return the derivative of the summed log loss by the inverse of the temperature."""
    total = 0.0
    for start in range(0, len(logits), ROWS):
        rows = logits[start : start + ROWS].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        weights = np.exp(rows * inverse)
        expected = (weights * rows).sum(axis=1) / weights.sum(axis=1)
        total += float((expected - rows[np.arange(len(rows)), labels[start : start + ROWS]]).sum())
    return total
