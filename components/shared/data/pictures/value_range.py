"""The one pair of bounds by which all wide pictures of a data set become 8 bits: measured, and applied.

The bounds are percentiles of the pixels of the pictures outside the test split. They need a pass of their own, in which
each picture gives its values at even ranks: a file of all pixels could be many times larger than the prepared data.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared.core.document import ValueRange
from components.shared.core.errors import UserError
from components.shared.data.dataset import Images
from components.shared.data.pictures.wide import SPANS, Numbers

PERCENTILES = (0.1, 99.9)
MAX_PICTURES = 8_192  # that are measured, evenly spread: they take 64 MiB
LEVELS = 1_024  # values of each

_ROWS_AT_ONCE = 2**20  # numbers that are scaled at a time
LITTLE_USED = 0.1  # share of the type's values


class Unscaled(Exception):
    """A wide picture that was decoded before the bounds are known: the type of its numbers, and its levels.

    The levels are the lowest number, LEVELS numbers at even ranks, and the highest; none if no pixel has a number.
    """

    def __init__(self, numbers: Numbers, kind: str) -> None:
        super().__init__(kind)
        self.levels = _levels(numbers)


class ValueSample:
    """The levels of a data set's wide pictures, by the number of the picture."""

    def __init__(self, every: int = 1) -> None:
        """Start without pictures; of all pictures, one in so many is measured, if it is wide."""
        self._every = every
        self._levels: dict[int, NDArray[np.float64]] = {}
        self.count = 0

    def add(self, number: int, picture: Unscaled) -> None:
        """Add a picture by its number in the source."""
        if number % self._every == 0:
            self._levels[number] = picture.levels
        self.count += 1

    def measure(self, counts: NDArray[np.bool_]) -> ValueRange:
        """Return the bounds, by the pictures that count. Raises UserError if none of them is wide or has a number."""
        if not self._levels:
            raise UserError(
                f"{self.count:,} pictures have more than 8 bits, and none of those that were measured had",
                "give value_range=LOW,HIGH",
            )
        levels = [levels for number, levels in self._levels.items() if counts[number] and len(levels)]
        if not levels:
            raise UserError(
                f"{len(self._levels):,} measured pictures have more than 8 bits, but none outside the test split holds "
                "a number",
                "give value_range=LOW,HIGH, or convert the pictures to 8 bits",
            )
        table = np.stack(levels)
        low, high = np.percentile(table[:, 1:-1], PERCENTILES)
        if low == high:  # nearly all pixels are alike
            low, high = table[:, 0].min(), table[:, -1].max()
        return ValueRange(low=float(low), high=float(high if high > low else low + 1))


def spread(pictures: int) -> int:
    """Return the number of pictures of which one is measured, if a data set has so many."""
    return 1 + pictures // MAX_PICTURES


def remarks_on(bounds: ValueRange, types: Mapping[str, int]) -> list[str]:
    """Return what is to say about measured bounds, by the types of the pictures' numbers."""
    low, high = (f"{value:,.6g}" for value in (bounds.low, bounds.high))
    warning = little_used(bounds, types)
    return [
        f"pictures of more than 8 bits: up to {low} becomes black, from {high} on white; these are the percentiles "
        f"{PERCENTILES[0]} and {PERCENTILES[1]} of the pictures outside the test split",
        *[f"warning: {warning}"] * bool(warning),
    ]


def scale(numbers: Numbers, bounds: ValueRange) -> Images:
    """Return numbers as 8 bits (H x W, or H x W x channels, the last of which is alpha if there is one).

    A number x becomes floor(255 * (x - low) / (high - low) + 0.5), at least 0 and at most 255; no number becomes 0.
    """
    values = numbers.values
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _ROWS_AT_ONCE // max(1, values[0].size))
    for start in range(0, len(values), rows):
        part = values[start : start + rows].astype(np.float64)
        part = np.clip((part - bounds.low) * 255 / (bounds.high - bounds.low), 0, 255)
        scaled[start : start + rows] = np.nan_to_num(part) + 0.5
    if numbers.alpha is None:
        return scaled
    return np.dstack([scaled] * (3 if scaled.ndim == 2 else 1) + [numbers.alpha])


def little_used(bounds: ValueRange, types: Mapping[str, int]) -> str:
    """Return a warning if measured bounds span little of what the types of the pictures' numbers can hold."""
    wide = sorted(types.keys() & SPANS.keys())
    share = (bounds.high - bounds.low) / max(1, *(SPANS[kind] for kind in wide))
    if "float" in wide or share >= LITTLE_USED:
        return ""
    return (
        f"the bounds span {share:.2%} of what {' and '.join(wide)} can hold; if what matters lies outside of "
        "them, give value_range=LOW,HIGH"
    )


def mixed(types: Mapping[str, int]) -> str:
    """Return a warning if there are pictures of several types of numbers, by the number of pictures of each."""
    if len(types) < 2:
        return ""
    mix = ", ".join(f"{count:,} {kind}" for kind, count in sorted(types.items()))
    return (
        f"pictures of different types of numbers are mixed ({mix}). Those of 8 bits stay as they are, all others are "
        "scaled by the same bounds: a network may learn to tell the types apart. Convert all to one type"
    )


def _levels(numbers: Numbers) -> NDArray[np.float64]:
    values: NDArray[Any] = numbers.values if numbers.alpha is None else numbers.values[numbers.alpha > 0]
    values = np.sort(values[np.isfinite(values)], kind="stable")
    if not len(values):
        return np.zeros(0)
    ranks = (np.arange(LEVELS) + 0.5) * len(values) / LEVELS
    chosen = values[ranks.astype(np.int64)]
    return np.array([values[0], *chosen, values[-1]], np.float64)
