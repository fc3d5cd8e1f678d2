"""MNIST as a prepared dataset, and the same pixels as a dataset of torchvision, for the benches that compare them."""

from pathlib import Path
from typing import Any

import measure  # noqa: F401 (puts the repository's root on the path)
import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import MNIST

from components.download import download
from components.preprocess import preprocess
from components.resolve import resolve
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe


def prepare(scratch: Path, source: str = "mnist", **changes: Any) -> Dataset:
    """Download a data set and prepare it in `scratch` with the pipeline's defaults, except for `changes`."""
    version = resolve(graph="training", data=source, options={}).version
    download(data=source, version=version, recipe=ReadingRecipe().text(), needs_labels=True, raw=str(scratch / "raw"))
    recipe = PreprocessRecipe.of(**changes).text()
    preprocess(raw=str(scratch / "raw"), recipe=recipe, prepared_by="", dataset=str(scratch / "dataset"))
    return open_dataset(scratch / "dataset")


def torchvision_mnist(data: Dataset, scratch: Path, transform: Any) -> tuple[MNIST, MNIST]:
    """Return the pixels of `data` as datasets of torchvision, of 28 x 28 pixels: train and val together, and test."""
    folder = scratch / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, names in (("train", ("train", "val")), ("t10k", ("test",))):
        splits = [data.load(name) for name in names]
        images = np.concatenate([pixels[:, 0, 2:-2, 2:-2] for pixels, _ in splits])  # without the border of 2 pixels
        labels = np.concatenate([labels for _, labels in splits]).astype(np.uint8)
        _write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return MNIST(str(scratch), train=True, transform=transform), MNIST(str(scratch), train=False, transform=transform)


def _write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = np.array([0x800 + array.ndim, *array.shape], ">i4")
    path.write_bytes(header.tobytes() + array.tobytes())
