"""The figures of parts of the test split, which an average over all of it hides."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.data.dataset import Dataset, Labels
from components.shared.evaluation.calibration import expected_calibration_error
from components.shared.evaluation.document import BrightnessSlice, Slice, Slices
from components.shared.evaluation.inference import batch_size
from components.shared.evaluation.metrics import Probabilities, wilson_interval

THIRDS = ("darkest third", "middle third", "brightest third")  # of as many images each


def slices(probabilities: Probabilities, labels: Labels, data: Dataset) -> Slices:
    """Return the figures of each class, and of the images of the test split from the darkest to the brightest."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels

    def figures(name: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        low, high = wilson_interval(int(correct[rows].sum()), len(rows))
        return {
            "name": name,
            "images": len(rows),
            "accuracy": float(correct[rows].mean()),
            "accuracy_low": low,
            "accuracy_high": high,
            "expected_calibration_error": expected_calibration_error(confidence[rows], correct[rows]),
        }

    brightness = np.concatenate(list(_brightness(data)))
    thirds = zip(THIRDS, np.array_split(np.argsort(brightness, kind="stable"), len(THIRDS)), strict=True)
    ends = [(name, rows, brightness[rows[[0, -1]]].tolist()) for name, rows in thirds if len(rows)]
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(1, len(data.classes)))
    classes = zip(data.classes, np.split(order, starts), strict=True)
    return Slices(
        by_class=[Slice(**figures(name, rows)) for name, rows in classes],
        by_brightness=[
            BrightnessSlice(**figures(name, rows), darkest=darkest, brightest=brightest)
            for name, rows, (darkest, brightest) in ends
        ],
    )


def _brightness(data: Dataset) -> Iterator[NDArray[np.float64]]:
    """Yield the mean pixel of 0..1 of the test images, a batch at a time."""
    for images, _ in data.batches("test", batch_size(data.image_shape)):
        yield images.mean(axis=(1, 2, 3)) / 255
