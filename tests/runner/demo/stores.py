"""Stores with versions of real networks, from which demos are made."""

from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate import evaluate
from components.export import export
from components.shared.data.dataset import Images, Labels, open_dataset
from components.shared.data.dataset_store import SHARDS
from components.shared.data.decode import fit_arrays
from components.shared.data.sources.catalogue import CATALOGUE, DIGITS
from components.shared.data.sources.idx import open_idx
from components.shared.data.sources.mirrors import fetch_entry
from components.shared.parameters.evaluation import EvaluateRecipe, ExportRecipe
from components.shared.storage.client import Store
from components.train import train
from tests.dataset_writer import DatasetWriter
from tests.small_packages import Artifacts
from tests.trained_digits import training_recipe

ACCEPT_ALL: dict[str, Any] = {"min_accuracy": 0.0, "min_recall": 0.0, "threads": 1}
BLOCK = 10_000  # rows that are read at a time
COUNTS = {"train": 12_000, "val": 1_000, "test": 2_000}  # of MNIST
FEW = {"train": 300, "val": 50, "test": 200}


def read_mnist() -> dict[str, tuple[Images, Labels]]:
    """Return the images (uint8, N x 28 x 28) and labels of MNIST's two files, "train" and "t10k"."""
    paths = fetch_entry("mnist", CATALOGUE["mnist"])

    def read(name: str, dimensions: int) -> Images:
        return np.concatenate([*open_idx(paths[name], dimensions).rows(BLOCK)])

    return {
        name: (read(f"{name}-images-idx3-ubyte", 3), read(f"{name}-labels-idx1-ubyte", 1).astype(np.int64))
        for name in ("train", "t10k")
    }


def write_mnist(folder: Path, mnist: dict[str, tuple[Images, Labels]], counts: dict[str, int]) -> Path:
    """Write a dataset of the first pictures of MNIST's two files, prepared as by default."""
    folder.mkdir()
    writer = DatasetWriter(folder, classes=DIGITS, image_shape=(1, 32, 32), counts=counts)
    first = counts["train"]
    for split, file, start in (("train", "train", 0), ("val", "train", first), ("test", "t10k", 0)):
        images, labels = mnist[file]
        chosen = slice(start, start + counts[split])
        writer.append(split, fit_arrays(images[chosen, None], 32), labels[chosen])
    writer.finish(name="mnist", source="mnist", raw_digest="0" * 64, parameters={"image_size": 32}, seconds={})
    return folder


def make_artifacts(folder: Path, dataset: Path, **settings: Any) -> Artifacts:
    """Train, evaluate and export a network, some of tests.trained_digits.SETTINGS changed."""
    folder.mkdir()
    made = Artifacts(dataset, folder / "model", folder / "evaluation", folder / "package")
    train(dataset=dataset, model=made.model, recipe=training_recipe(**settings))
    evaluate(
        dataset=dataset,
        model=made.model,
        recipe=EvaluateRecipe.of(**ACCEPT_ALL).text(),
        metrics=folder / "metrics.json",
        classification=folder / "classification.json",
        report=folder / "report.html",
        evaluation=made.evaluation,
    )
    export(dataset=dataset, model=made.model, recipe=ExportRecipe.of(**ACCEPT_ALL).text(), package=made.package)
    return made


def store_dataset(store: Store, folder: Path) -> None:
    """Store a dataset as step preprocess does, under its own digest."""
    data = open_dataset(folder)
    for entry in data.files():
        store.put_file(folder / entry.path, f"{SHARDS}/{entry.sha256}.npy", entry.sha256)
    store.put_bytes((folder / "dataset.json").read_bytes(), f"datasets/{data.digest}/dataset.json")
