"""The proof that exported programs predict what PyTorch predicted when the model was evaluated."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.document import Count, Number, Part
from components.shared.data.dataset import Dataset, Images, Labels
from components.shared.evaluation.inference import BATCH, Classify, predict

TIE = 1e-6  # two classes whose probabilities differ by less may swap ranks
TOLERANCE = 1e-4  # in a probability: another program adds float32 numbers in another order


class Parity(Part):
    """The largest difference of a probability from the evaluated ones, by program."""

    images: Count
    largest_difference: dict[str, Number]


class ParityError(RuntimeError):
    """An exported program does not predict what PyTorch predicts."""


def prove_parity(programs: Mapping[str, Classify], data: Dataset, evaluated: NDArray[np.float32]) -> Parity:
    """Return how far the programs differ from the evaluated predictions, over the whole test split.

    The step evaluate made these with PyTorch; one batch shows whether PyTorch predicts the same in this process.
    """
    shards = list(data.shards("test"))
    batch = list(_first_batch(shards))
    num_first = sum(len(labels) for _, labels in batch)
    progress = log.Progress("comparing", num_first + 2 * len(evaluated), "images")
    eager = predict(programs["eager"], batch, progress)
    differences = {"evaluated": _difference("the evaluation and PyTorch", evaluated[:num_first], eager)}
    for name in ("onnxruntime", "torch_export"):
        found = predict(programs[name], shards, progress)
        differences[name] = _difference(f"{name} and the evaluation", found, evaluated)
    return Parity(images=len(evaluated), largest_difference=differences)


def _first_batch(shards: Sequence[tuple[Images, Labels]]) -> Iterator[tuple[Images, Labels]]:
    """Yield the first `BATCH` images of the shards."""
    size = BATCH
    for images, labels in shards:
        yield images[:size], labels[:size]
        size -= len(labels)
        if size <= 0:
            return


def _difference(names: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference of a probability. Raises ParityError if it is too large or a class differs."""
    if found.shape != expected.shape:
        raise ParityError(f"{names} have predictions of different shapes: {found.shape} and {expected.shape}")
    second, first = np.sort(expected, axis=1)[:, -2:].T
    others = int(((found.argmax(axis=1) != expected.argmax(axis=1)) & (first - second >= TIE)).sum())
    largest = float(np.abs(found - expected).max())
    if others or not largest <= TOLERANCE:  # NaN is no parity
        raise ParityError(
            f"{names} differ in the class of {others:,} of {len(expected):,} test images, and by up to "
            f"{largest:.2g} in a probability (allowed: {TOLERANCE:g}); this model is not exported"
        )
    return largest
