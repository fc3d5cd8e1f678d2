"""The 8 x 8 digits of scikit-learn (Alpaydin and Kaynak 1998), which need no network."""

from importlib.metadata import distribution, version
from pathlib import Path

import numpy as np

from components.shared.data.layout.reading import Reading
from components.shared.data.sources.catalogue import DIGITS
from components.shared.data.sources.idx import describe_idx, write_idx
from components.shared.data.sources.schemes import RawDescription

FILE = "sklearn/datasets/data/digits.csv.gz"  # in each row 64 values and the label


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return what scikit-learn's `load_digits` does, images and labels, without its import, which takes a second."""
    table = np.loadtxt(Path(str(distribution("scikit-learn").locate_file(FILE))), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


class Digits:
    """A Source: 1,797 images in IDX files, their values 0..16 scaled to 0..255."""

    def version(self) -> str:
        """Return the version of scikit-learn."""
        return f"scikit-learn {version('scikit-learn')}"

    def fetch(self, folder: Path, _: Reading) -> RawDescription:
        """Write the IDX files to the folder and describe them."""
        images, labels = read_digits()
        write_idx(folder / "all-images-idx3-ubyte", np.round(images * (255 / 16)).astype(np.uint8))
        write_idx(folder / "all-labels-idx1-ubyte", labels.astype(np.uint8))
        return describe_idx(folder, "scikit-learn's digits", DIGITS)


def open_source(_: str) -> Digits:
    """Open the digits."""
    return Digits()
