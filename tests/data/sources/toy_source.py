"""A source as somebody would add it: data=toy://N is a data set of N images of two classes, at version N."""

from pathlib import Path

import numpy as np

from components.shared.data.layout.reading import Reading
from components.shared.data.sources.idx import describe_idx, write_idx
from components.shared.data.sources.schemes import RawDescription


class ToySource:
    """A Source."""

    def __init__(self, count: int) -> None:
        self._count = count

    def version(self) -> str:
        return f"toy {self._count}"

    def fetch(self, folder: Path, reading: Reading) -> RawDescription:
        write_idx(folder / "train-images-idx3-ubyte", np.zeros((self._count, 8, 8), np.uint8))
        write_idx(folder / "train-labels-idx1-ubyte", np.arange(self._count, dtype=np.uint8) % 2)
        return describe_idx(folder, "toy", ["even", "odd"])


def open_source(data: str) -> ToySource:
    return ToySource(int(data.removeprefix("toy://")))
