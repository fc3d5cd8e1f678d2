"""What a model's inputs looked like when it was evaluated: the reference for drift.

`drift.json` has a histogram of each statistic and the number of predictions of each class, over the whole test split;
`reference.npy` (float32, at most 2,000 x columns) has the statistics and an 8 x 8 thumbnail of images drawn from it.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from components.shared.core.document import Count, Document, Items, Names, Number, Part, Size, require
from components.shared.data.dataset import Images
from components.shared.evaluation.metrics import Probabilities

MAX_VECTORS = 2000
BINS = 10  # of as many reference images each, and one for each value of more images than that
THUMBNAIL = 8  # pixels a side
DECIMALS = 5  # of confidence and entropy
OF_IMAGES = ("brightness", "contrast", "sharpness")
OF_COLOURS = ("saturation",)
OF_PREDICTIONS = ("confidence", "entropy")

Vectors = NDArray[np.float32]


class Histogram(Part):
    """The images between two edges each: the first and last bins are open; a value at an edge lies above it."""

    edges: list[Number]
    counts: Items[Count]

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        require("edges", self.edges == sorted(set(self.edges)))
        require("counts", len(self.counts) == len(self.edges) + 1)
        return self

    def count(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return how many of the values lie in each bin (int64)."""
        return np.bincount(np.searchsorted(self.edges, values, side="right"), minlength=len(self.counts))


class DriftDocument(Document):
    """`drift.json`: the inputs and the predictions of an evaluated model."""

    FORMAT = "torch2kubeflow/drift"
    REMEDY = "evaluate the model again"
    MAX_BYTES = 2**20

    images: Size
    classes: Names
    predicted: Items[Count]  # images of each class
    statistics: dict[str, Histogram]
    vectors: Annotated[int, Field(ge=1, le=MAX_VECTORS)]  # rows of reference.npy
    columns: Names  # of it

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        require("predicted", len(self.predicted) == len(self.classes) and sum(self.predicted) == self.images)
        for name, histogram in self.statistics.items():
            require(f"statistics.{name}.counts", sum(histogram.counts) == self.images)
        require("columns", self.columns[: len(self.statistics)] == [*self.statistics])
        return self


def vectors_of(images: Images, probabilities: Probabilities) -> Vectors:
    """Return a row of numbers for each image (uint8, N x C x H x W) and its probabilities (N x classes).

    Its columns are the statistics and the pixels of the thumbnail.
    """
    return np.column_stack([statistics(images, probabilities), thumbnails(images)])


def statistics(images: Images, probabilities: Probabilities) -> Vectors:
    """Return the statistics of each image (uint8, N x C x H x W) and its probabilities, of pixels of 0..1.

    They are brightness (mean), contrast (standard deviation), sharpness (mean absolute difference of neighbours) and
    saturation (mean range of the channels), confidence (highest probability), and entropy (nats).
    """
    pixels = _scaled(images)
    gray = _gray(pixels)
    mean = gray.mean(axis=(1, 2), keepdims=True)
    steps = [_mean_size(np.diff(gray, axis=axis)) for axis in (1, 2)]
    found = [mean[:, 0, 0], gray.std(axis=(1, 2), mean=mean), (steps[0] + steps[1]) / 2]
    if pixels.shape[1] > 1:
        found.append((pixels.max(axis=1) - pixels.min(axis=1)).mean(axis=(1, 2)))
    smallest = np.finfo(np.float32).tiny
    entropy = -(probabilities * np.log(np.maximum(probabilities, smallest))).sum(axis=1)
    found += [rounded(probabilities.max(axis=1)), rounded(entropy)]
    return np.column_stack(found).astype(np.float32)


def thumbnails(images: Images) -> Vectors:
    """Return the mean pixels of a grid of 8 x 8 areas of each image (N x 64)."""
    gray: NDArray[Any] = _gray(_scaled(images))
    for axis in (1, 2):
        starts = np.arange(THUMBNAIL) * gray.shape[axis] // THUMBNAIL
        sizes = np.diff([*starts, gray.shape[axis]])
        shape = [-1 if number == axis else 1 for number in range(3)]
        gray = np.add.reduceat(gray, starts, axis=axis) / np.reshape(sizes, shape).astype(np.float32)
    return gray.reshape(len(gray), THUMBNAIL**2)


def _scaled(images: Images) -> NDArray[np.float32]:
    """Return the pixels as 0..1."""
    pixels = images.astype(np.float32)
    pixels /= 255
    return pixels


def _gray(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the channels (N x H x W)."""
    return pixels[:, 0] if pixels.shape[1] == 1 else pixels.mean(axis=1)


def _mean_size(steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean absolute value for each image, and keep it in place of the signed ones."""
    means: NDArray[np.float32] = np.abs(steps, out=steps).mean(axis=(1, 2))
    return means


def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a statistic of predictions without the digits in which PyTorch and ONNX Runtime differ.

    Of a model that is nearly always certain, these alone would shift a large share of the values from bin to bin.
    """
    return np.round(values, DECIMALS)


def statistics_of(channels: int) -> list[str]:
    """Return the names of the statistics, which are the first columns of a vector."""
    return [*OF_IMAGES, *(OF_COLOURS if channels > 1 else ()), *OF_PREDICTIONS]


def reference(
    parts: Iterable[tuple[Images, Probabilities]], classes: list[str], seed: int = 0
) -> tuple[DriftDocument, Vectors]:
    """Return the reference that images and their probabilities, in parts of a split, make."""
    rows, predicted, channels = [], np.zeros(len(classes), np.int64), 1
    for images, probabilities in parts:
        channels = images.shape[1]
        predicted += np.bincount(probabilities.argmax(axis=1), minlength=len(classes))
        rows.append(vectors_of(images, probabilities))
    return reference_of(np.concatenate(rows), predicted, classes, channels, seed)


def reference_of(
    vectors: Vectors, predicted: NDArray[np.int64], classes: list[str], channels: int, seed: int = 0
) -> tuple[DriftDocument, Vectors]:
    """Return the reference of images that have these vectors, and of which so many were predicted as each class."""
    names = statistics_of(channels)
    count = min(MAX_VECTORS, len(vectors))
    drawn = np.sort(np.random.default_rng(seed).choice(len(vectors), count, replace=False))
    document = DriftDocument(
        images=len(vectors),
        classes=classes,
        predicted=predicted.tolist(),
        statistics={name: _histogram(column) for name, column in zip(names, vectors.T, strict=False)},
        vectors=count,
        columns=[*names, *(f"pixel {number}" for number in range(vectors.shape[1] - len(names)))],
    )
    return document, vectors[drawn]


def _histogram(values: NDArray[np.float32]) -> Histogram:
    quantiles = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    frequent = quantiles[1:][np.diff(quantiles) == 0]  # such a value has a bin of its own
    edges = np.unique([*quantiles, *np.nextafter(frequent, np.float32(np.inf))]).tolist()
    empty = Histogram(edges=edges, counts=[0] * (len(edges) + 1))
    return Histogram(edges=edges, counts=empty.count(values).tolist())
