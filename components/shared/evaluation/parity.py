"""The proof that exported programs predict what PyTorch predicts."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.document import Count, Number, Part
from components.shared.data.dataset import Dataset
from components.shared.evaluation.inference import Classify, predict

TIE = 1e-6  # two classes whose probabilities differ by less may swap ranks
TOLERANCE = 1e-4  # in a probability: another program adds float32 numbers in another order


class Parity(Part):
    """The largest difference of a probability from the evaluated ones, by program."""

    images: Count
    largest_difference: dict[str, Number]


class ParityError(RuntimeError):
    """An exported program does not predict what PyTorch predicts."""


def prove_parity(programs: Mapping[str, Classify], data: Dataset, predicted: NDArray[np.float32]) -> Parity:
    """Return how far the programs differ from what PyTorch predicted, over the whole test split."""
    progress = log.Progress("comparing", 2 * len(predicted), "images")
    differences = {}
    for name in ("onnxruntime", "torch_export"):
        found = predict(programs[name], data, progress)
        differences[name] = largest_difference(f"{name} and PyTorch", found, predicted)
    return Parity(images=len(predicted), largest_difference=differences)


def largest_difference(names: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference of a probability. Raises ParityError if it is too large or a class differs."""
    if found.shape != expected.shape:
        raise ParityError(f"{names} have predictions of different shapes: {found.shape} and {expected.shape}")
    second, first = np.sort(expected, axis=1)[:, -2:].T
    others = int(((found.argmax(axis=1) != expected.argmax(axis=1)) & (first - second >= TIE)).sum())
    largest = float(np.abs(found - expected).max())
    if others or not largest <= TOLERANCE:  # NaN is no parity
        raise ParityError(
            f"{names} differ in the class of {others:,} of {len(expected):,} test images, and by up to "
            f"{largest:.2g} in a probability (allowed: {TOLERANCE:g})"
        )
    return largest
