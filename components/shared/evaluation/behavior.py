"""Behavioral tests: whether a classifier still sees what is in test images after changes that leave it there.

They are the invariance tests of Ribeiro, Wu, Guestrin and Singh, "Beyond accuracy: behavioral testing of NLP models
with CheckList", ACL 2020, with fixed strengths:

shifted    a sixteenth of the side, in one of eight directions; pixels of the edge are repeated
thinned    strokes a pixel thinner for each 32 of the side, by erosion (on light images dilation), as in Castro et al.,
           "Morpho-MNIST", JMLR 2019
inverted   the negative
noisy      Gaussian noise of a standard deviation of 0.1 of the range, the strongest for images of 32 pixels of
           Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
           ICLR 2019, where the share of predictions that change is the flip rate
occluded   a gray square of a quarter of the side, anywhere, as in Zeiler and Fergus, "Visualizing and understanding
           convolutional networks", ECCV 2014
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.data.dataset import Dataset, Images, Labels
from components.shared.evaluation.document import Behavior, BehaviorTest
from components.shared.evaluation.inference import Classify, batch_size
from components.shared.evaluation.metrics import Probabilities, wilson_interval
from components.shared.parameters.evaluation import BEHAVIOR

SEED = 0
GRAY = 128
NOISE = 0.1  # of the range of the pixels
DIRECTIONS = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]


class Observed(NamedTuple):
    """What a classifier did, and the first of the images in each test."""

    behavior: Behavior
    examples: dict[str, Images]  # C x H x W, by the name of the test


def observe(
    classify: Classify,
    data: Dataset,
    probabilities: Probabilities,
    labels: Labels,
    *,
    images: int,
    names: Iterable[str] = BEHAVIOR,
) -> Observed:
    """Return what a classifier predicts of changed test images, so many or all if there are fewer.

    `probabilities` are those of the whole test split as it is. A test does not depend on the others that are run.
    """
    drawn = np.random.default_rng(SEED).choice(len(labels), min(images, len(labels)), replace=False)
    drawn.sort()
    before, truth = probabilities[drawn].argmax(axis=1), labels[drawn]
    random = {name: np.random.default_rng([SEED, BEHAVIOR.index(name)]) for name in names}
    predicted: dict[str, list[NDArray[np.int64]]] = {name: [] for name in random}
    examples: dict[str, Images] = {}
    progress = log.Progress("changed test images", len(random) * len(drawn), "images")
    size = batch_size(data.image_shape)
    for start in range(0, len(drawn), size):
        part = data.take("test", drawn[start : start + size].tolist())
        for name, generator in random.items():
            change = CHANGES[name]
            result = change.apply(part, change.pixels(part.shape[-1]), generator)
            examples.setdefault(name, result[0])
            predicted[name].append(classify(result).argmax(axis=1))
            progress.advance(len(part))
    behavior = Behavior(
        images=len(drawn),
        seed=SEED,
        accuracy=float((before == truth).mean()),
        tests=[
            _test(name, CHANGES[name].described(data.image_shape[-1]), np.concatenate(parts), before, truth)
            for name, parts in predicted.items()
        ],
    )
    return Observed(behavior, examples)


def _test(name: str, change: str, predicted: Labels, before: Labels, truth: Labels) -> BehaviorTest:
    correct = predicted == truth
    low, high = wilson_interval(int(correct.sum()), len(truth))
    return BehaviorTest(
        name=name,
        change=change,
        accuracy=float(correct.mean()),
        accuracy_low=low,
        accuracy_high=high,
        unchanged=float((predicted == before).mean()),
    )


def _shift(images: Images, pixels: int, random: Generator) -> Images:
    height, width = images.shape[2:]
    chosen = random.integers(len(DIRECTIONS), size=len(images)).tolist()
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
    places = [(pixels * y, pixels * x) for y, x in (DIRECTIONS[number] for number in chosen)]
    return np.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, places, strict=True)])


def _thin(images: Images, pixels: int, _: Generator) -> Images:
    light = images.mean(axis=(1, 2, 3), keepdims=True) > 255 / 2
    thinned = np.where(light, 255 - images, images)
    for axis in (2, 3):
        thinned = _erode(thinned, axis, pixels)
    return np.where(light, 255 - thinned, thinned)


def _erode(images: Images, axis: int, pixels: int) -> Images:
    """Return the least of each pixel and its neighbors along an axis, so many, half of them on either side."""
    around = [((pixels + 1) // 2, pixels // 2) if number == axis else (0, 0) for number in range(images.ndim)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(images, around, mode="edge"), pixels + 1, axis)
    least: Images = windows.min(axis=-1)
    return least


def _invert(images: Images, _: int, __: Generator) -> Images:
    return 255 - images


def _add_noise(images: Images, _: int, random: Generator) -> Images:
    noise = random.standard_normal(images.shape, np.float32) * np.float32(255 * NOISE)
    return np.clip(images + noise + 0.5, 0, 255).astype(np.uint8)


def _occlude(images: Images, pixels: int, random: Generator) -> Images:
    ends = [size - pixels + 1 for size in images.shape[2:]]
    occluded = images.copy()
    for image, (y, x) in zip(occluded, random.integers(ends, size=(len(images), 2)).tolist(), strict=True):
        image[:, y : y + pixels, x : x + pixels] = GRAY
    return occluded


class Change(NamedTuple):
    """A change of images by a number of pixels."""

    apply: Callable[[Images, int, Generator], Images]
    share: int  # of the side: the divisor that gives the pixels; 0 if the change has none
    words: str

    def pixels(self, side: int) -> int:
        """Return the strength for images of this side."""
        return max(1, round(side / self.share)) if self.share else 0

    def described(self, side: int) -> str:
        """Return in words what is done to images of this side."""
        pixels = self.pixels(side)
        return self.words.format(f"{pixels} pixel" if pixels == 1 else f"{pixels} pixels")


CHANGES = {
    "shifted": Change(_shift, 16, "moved by {} in one of eight directions"),
    "thinned": Change(_thin, 32, "strokes thinner by {} (erosion; dilation of light images)"),
    "inverted": Change(_invert, 0, "black for white"),
    "noisy": Change(_add_noise, 0, f"Gaussian noise of standard deviation {NOISE}"),
    "occluded": Change(_occlude, 4, "a gray square of {} a side, anywhere"),
}
