"""The least certain pictures of a table of predictions: those whose class has the lowest probability."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.shared.data.dataset import Images
from components.shared.prediction.inputs import Inputs
from components.shared.prediction.table import part_number, read_part

LEAST_CERTAIN = 50  # pictures on the page


class Uncertain(NamedTuple):
    """A picture with a low probability of its class."""

    probability: float
    number: int  # of its row
    source: str
    found: str


def least_certain(parts: Iterable[Path], part_rows: int) -> list[Uncertain]:
    """Return the least certain pictures of the parts, of which each but the last of a table has so many rows."""
    return sorted(_of_each(parts, part_rows))[:LEAST_CERTAIN]


def _of_each(parts: Iterable[Path], part_rows: int) -> Iterator[Uncertain]:
    for path in parts:
        table = read_part(path, ["probability", "source", "class"])
        least = np.argsort(table["probability"].to_numpy(), kind="stable")[:LEAST_CERTAIN]
        for number, row in zip(least.tolist(), table.take(least).to_pylist(), strict=True):
            if row["probability"] is not None:
                yield Uncertain(row["probability"], part_number(path) * part_rows + number, row["source"], row["class"])


def pictures_of(inputs: Inputs, rows: Sequence[Uncertain]) -> dict[int, Images]:
    """Return the pictures of some rows (uint8, C x H x W) by their numbers."""
    numbers = sorted(row.number for row in rows)
    return {number: batch.images[0] for number, batch in zip(numbers, inputs.take(numbers), strict=True)}
