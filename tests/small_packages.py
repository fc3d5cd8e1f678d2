"""Small artifacts of models with given predictions, for tests of what comes after export."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.register import register
from components.shared.core.files import sha256_file, sha256_json, write_json
from components.shared.data.dataset import DatasetWriter, open_dataset
from components.shared.evaluation.document import FORMAT, METRICS
from components.shared.evaluation.exported_model import read_package, write_package
from components.shared.parameters.registration import RegisterRecipe

CLASSES = ["light", "dark"]


@dataclass(frozen=True)
class Artifacts:
    """The folders of a model's artifacts."""

    dataset: Path
    model: Path
    evaluation: Path
    package: Path

    @property
    def digest(self) -> str:
        return str(read_package(self.package)["digest"])

    def register(self, folder: Path, store: str = "", name: str = "", significance: float = 0.05) -> dict[str, Any]:
        """Run the step register with its outputs in `folder`; return `registration.json`."""
        register(
            dataset=self.dataset,
            model=self.model,
            evaluation=self.evaluation,
            package=self.package,
            recipe=RegisterRecipe.of(store=store, model_name=name, significance=significance, threads=1).text(),
            registration=folder / "registration",
            promotion=folder / "promotion.html",
        )
        document: dict[str, Any] = json.loads((folder / "registration/registration.json").read_bytes())
        assert sorted(path.name for path in folder.iterdir()) == ["promotion.html", "registration"]
        assert [path.name for path in (folder / "registration").iterdir()] == ["registration.json"]
        return document


def write_dataset(folder: Path, images: int, classes: Sequence[str] = CLASSES, side: int = 4, seed: int = 0) -> Path:
    """Write a dataset of random images (side x side), `images` of them in the test split."""
    random = np.random.default_rng(seed)
    counts = {"train": 8, "val": 8, "test": images}
    folder.mkdir(parents=True)
    writer = DatasetWriter(folder, classes=classes, image_shape=(1, side, side), counts=counts)
    for split, count in counts.items():
        writer.append(split, random.integers(0, 256, (count, 1, side, side), np.uint8), np.arange(count) % len(classes))
    writer.finish(name="Light & dark", source="made", raw_digest="0" * 64, parameters={"image_size": side}, seconds={})
    return folder


def write_artifacts(folder: Path, dataset: Path, right: Sequence[bool] | np.ndarray, seed: int = 0) -> Artifacts:
    """Write model, evaluation and package of a model that classifies the test images `right` (bool, N) correctly."""
    data = open_dataset(dataset)
    labels = data.load("test")[1]
    predictions = np.eye(len(data.classes), dtype=np.float32)[(labels + ~np.asarray(right)) % len(data.classes)]
    made = Artifacts(dataset, folder / "model", folder / "evaluation", folder / "package")
    for path in (made.model, made.evaluation, made.package):
        path.mkdir(parents=True)
    np.save(made.evaluation / "predictions.npy", predictions)
    content = hashlib.sha256(predictions.tobytes() + bytes([seed % 256])).digest()
    for path in (made.model / "model.safetensors", made.package / "model.onnx", made.package / "model.pt2"):
        path.write_bytes(path.name.encode() + content)
    weights = sha256_file(made.model / "model.safetensors")
    model = {
        "format": "torch2kubeflow/model",
        "dataset_digest": data.digest,
        "code_version": "0" * 12,
        "parameters": {"epochs": 1},
        "seed": seed,
        "threads": 1,
        "torch": "2",
        "device": "cpu",
        "weights_sha256": weights,
    }
    digests = {"dataset_digest": data.digest, "model_digest": sha256_json(model)}
    write_json(made.model / "model.json", {**model, "checksum": sha256_json(model)})
    accuracy = float(np.mean(right))
    evaluation = {"format": FORMAT, **digests, **dict.fromkeys(METRICS, 0.5), "accuracy": accuracy, "seconds": {}}
    write_json(made.evaluation / "evaluation.json", evaluation)
    programs = [made.package / "model.onnx", made.package / "model.pt2"]
    description = {
        "classes": data.classes,
        "input": {"name": "images", "dtype": "uint8", "shape": ["batch", *data.image_shape]},
        "output": {"name": "probabilities", "dtype": "float32", "shape": ["batch", len(data.classes)]},
        **digests,
        "weights_sha256": weights,
        "test_accuracy": accuracy,
        "predictions_sha256": sha256_file(made.evaluation / "predictions.npy"),
        "metrics": {"accuracy": accuracy},
        "files": {path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in programs},
    }
    write_package(made.package, description)
    return made


def right(images: int, *ranges: range) -> np.ndarray:
    """Return an array (bool, N) that is true in `ranges`."""
    found = np.zeros(images, bool)
    for numbers in ranges:
        found[numbers] = True
    return found
