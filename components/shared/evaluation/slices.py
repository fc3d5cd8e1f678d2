"""The figures of parts of the test split, which an average over all of it hides."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.data.dataset import Dataset, Labels
from components.shared.data.image_sizes import image_sizes
from components.shared.evaluation.calibration import expected_calibration_error
from components.shared.evaluation.document import BrightnessSlice, SizeSlice, Slice, Slices
from components.shared.evaluation.inference import batch_size
from components.shared.evaluation.metrics import Probabilities, wilson_interval

THIRDS = ("darkest third", "middle third", "brightest third")  # of as many images each
SIZES = ("smallest third", "middle third", "largest third")


def slices(probabilities: Probabilities, labels: Labels, data: Dataset) -> Slices:
    """Return the figures of each class, and of the test images by brightness and by the size of their pictures."""
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
    sizes = image_sizes(data, "test")
    pixels = np.zeros(0, np.int64) if sizes is None else sizes.astype(np.int64).prod(axis=1)
    if len(np.unique(pixels)) < 2:
        pixels = pixels[:0]
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(1, len(data.classes)))
    classes = zip(data.classes, np.split(order, starts), strict=True)
    return Slices(
        by_class=[Slice(**figures(name, rows)) for name, rows in classes],
        by_brightness=[
            BrightnessSlice(**figures(name, rows), darkest=darkest, brightest=brightest)
            for name, rows, (darkest, brightest) in _thirds(THIRDS, brightness)
        ],
        by_size=[
            SizeSlice(**figures(name, rows), smallest=smallest, largest=largest)
            for name, rows, (smallest, largest) in _thirds(SIZES, pixels)
        ],
        is_size_known=sizes is not None,
    )


def _thirds(names: Sequence[str], values: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.int64], list[Any]]]:
    """Yield the name, the rows, and the lowest and the highest value of each third of the images."""
    for name, rows in zip(names, np.array_split(np.argsort(values, kind="stable"), len(names)), strict=True):
        if len(rows):
            yield name, rows, values[rows[[0, -1]]].tolist()


def _brightness(data: Dataset) -> Iterator[NDArray[np.float64]]:
    """Yield the mean pixel of 0..1 of the test images, a batch at a time."""
    for images, _ in data.batches("test", batch_size(data.image_shape)):
        yield images.mean(axis=(1, 2, 3)) / 255
