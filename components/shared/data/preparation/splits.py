"""The split of each image: the source's own splits, and stratified samples if the source has none.

Sampling is streamed: each image is seen once, in order, in constant memory. The number of images of a class that a
block holds out is hypergeometric in the numbers still needed and still to come, so that the whole is a uniform sample
of exactly the requested size (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S, by blocks).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.data.dataset import SPLITS

TRAIN, VAL, TEST = range(len(SPLITS))

Counts = NDArray[np.int64]  # split x class


def held_out(counts: Counts, fractions: Mapping[int, float]) -> Counts:
    """Return how many training images become those of the test and the validation split, each unless it has some.

    They are `fractions` of those of each class, rounded to the nearest number, but at least one image and never the
    last one.
    """
    taken = np.zeros_like(counts)
    pool = counts[TRAIN].copy()
    for split in (TEST, VAL):
        if not counts[split].any():
            taken[split] = _share(pool, fractions[split])
            pool -= taken[split]
    return taken


def check_classes(classes: Sequence[str], counts: Counts, found: Counts) -> None:
    """Raise UserError if a split has no image of a class, of which `found` are there in all."""
    for split, row in zip(SPLITS, counts, strict=True):
        for name, count, total in zip(classes, row.tolist(), found.tolist(), strict=True):
            if count == 0:
                raise UserError(
                    f"class {name!r} has 0 images in the {split} split, of {total:,} in all (copies in a later split "
                    "are dropped)",
                    "add pictures of it, or remove the class",
                )


class Splitter:
    """Holds out a stratified test and validation split, each unless the source has one, as `held_out` says."""

    def __init__(self, counts: Counts, fractions: Mapping[int, float], seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._left = counts[TRAIN].copy()  # training images of each class still to come
        self._needed = held_out(counts, fractions)

    def assign(self, labels: NDArray[np.int32], splits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the splits (N) of the next images, given their labels (N) and their splits in the source (N)."""
        assigned = splits.copy()
        pool = np.flatnonzero(splits == TRAIN)
        present = np.bincount(labels[pool], minlength=len(self._left))
        test, val = self._draw(present)
        order = pool[np.lexsort((self._random.random(len(pool)), labels[pool]))]
        own = labels[order]
        rank = np.arange(len(order)) - (np.cumsum(present) - present)[own]  # within its class, in random order
        assigned[order[rank < (test + val)[own]]] = VAL
        assigned[order[rank < test[own]]] = TEST
        return assigned

    def _draw(self, present: Counts) -> tuple[Counts, Counts]:
        test_left, val_left = self._needed[TEST], self._needed[VAL]
        test = self._random.hypergeometric(test_left, self._left - test_left, present)
        others = self._left - test_left
        val = self._random.hypergeometric(val_left, others - val_left, present - test)
        self._left -= present
        test_left -= test
        val_left -= val
        return test, val


def _share(counts: Counts, fraction: float) -> Counts:
    nearest = np.floor(counts * fraction + 0.5).astype(np.int64)
    share: Counts = np.clip(nearest, 1, np.maximum(counts - 1, 0))
    return share
