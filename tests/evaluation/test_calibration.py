"""The calibration of a classifier: the error by hand, and what a temperature does to it."""

import numpy as np
import pytest

from components.shared.evaluation.calibration import BINS, calibration, expected_calibration_error
from tests.evaluation.test_metrics import softmax


def test_the_error_by_hand() -> None:
    # Fifteen bins of two images: in one of them the confidence is 0.6 with one of two right.
    confidence = np.repeat(np.linspace(0.6, 1, BINS), 2).astype(np.float32)
    correct = np.ones(2 * BINS, bool)
    correct[1] = False
    expected = (abs(0.6 - 0.5) + sum(1 - np.linspace(0.6, 1, BINS)[1:])) / BINS
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-6)


def test_bins_hold_as_many_images_each() -> None:
    # Bins of equal width would see errors that cancel out in the last one only: all lie between 0.99 and 1.
    confidence = np.linspace(0.99, 1, 300, dtype=np.float32)
    correct = np.arange(300) >= 20  # the first bin is wrong
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.0707, abs=0.002)


def test_a_perfect_classifier_has_no_error() -> None:
    assert expected_calibration_error(np.ones(4, np.float32), np.ones(4, bool)) == 0


@pytest.mark.slow
def test_the_temperature_is_undone_for_the_comparison() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(3000, 10)) * 2
    labels = np.array([random.choice(10, p=row / row.sum()) for row in np.exp(logits)])
    found = calibration(softmax(logits), labels, temperature=0.5)
    doubled = calibration(softmax(logits / 2), labels, temperature=1)
    assert found.uncalibrated.error == pytest.approx(doubled.calibrated.error, abs=1e-5) and found.temperature == 0.5
    assert found.calibrated.low < found.calibrated.high < found.uncalibrated.low
    assert found == calibration(softmax(logits), labels, temperature=0.5)
    assert calibration(softmax(logits), labels, 1).uncalibrated == found.calibrated
