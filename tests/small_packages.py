"""Small artifacts of models with given predictions, for tests of what comes after export."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np

from components.register import register
from components.shared.core.document import Fingerprint
from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.exported_model import PackageDocument, Tensor
from components.shared.evaluation.metrics import measure
from components.shared.models.document import ModelDocument
from components.shared.parameters.registration import RegisterRecipe
from components.shared.registry.document import DataOrigin, Figures, Provenance, VersionDocument
from tests.dataset_writer import DatasetWriter
from tests.models.documents import architecture, facts

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
        return PackageDocument.read(self.package / "package.json").digest

    def register(
        self, folder: Path, store: str = "", name: str = "", has_page: bool = True, **parameters: Any
    ) -> dict[str, Any]:
        """Run the step register with its outputs in `folder`; return `registration.json`."""
        register(
            dataset=self.dataset,
            model=self.model,
            evaluation=self.evaluation,
            package=self.package,
            recipe=RegisterRecipe.of(store=store, model_name=name, threads=1, **parameters).text(),
            registration=folder / "registration",
            promotion=folder / "promotion.html",
        )
        document: dict[str, Any] = json.loads((folder / "registration/registration.json").read_bytes())
        made = [*(["promotion.html"] * has_page), "registration"]
        assert sorted(path.name for path in folder.iterdir()) == made
        assert [path.name for path in (folder / "registration").iterdir()] == ["registration.json"]
        return document


def write_dataset(
    folder: Path, images: int, classes: Sequence[str] = CLASSES, side: int = 4, seed: int = 0, **parameters: Any
) -> Path:
    """Write a dataset of random images (side x side), `images` of them in the test split."""
    random = np.random.default_rng(seed)
    counts = {"train": 8, "val": 8, "test": images}
    folder.mkdir(parents=True)
    writer = DatasetWriter(folder, classes=classes, image_shape=(1, side, side), counts=counts)
    for split, count in counts.items():
        writer.append(split, random.integers(0, 256, (count, 1, side, side), np.uint8), np.arange(count) % len(classes))
    prepared = {"image_size": side, **parameters}
    writer.finish(name="Light & dark", source="made", raw_digest="0" * 64, parameters=prepared, seconds={})
    return folder


def write_artifacts(
    folder: Path,
    dataset: Path,
    right: Sequence[bool] | np.ndarray,
    seed: int = 0,
    members: Mapping[str, bytes] = MappingProxyType({}),
) -> Artifacts:
    """Write model, evaluation and package of a model that classifies the test images `right` (bool, N) correctly."""
    data = open_dataset(dataset)
    labels = data.load("test")[1]
    predictions = np.eye(len(data.classes), dtype=np.float32)[(labels + ~np.asarray(right)) % len(data.classes)]
    made = Artifacts(dataset, folder / "model", folder / "evaluation", folder / "package")
    for path in (made.model, made.evaluation, made.package):
        path.mkdir(parents=True)
    for path in (made.evaluation, made.package):
        np.save(path / "predictions.npy", predictions)
    content = hashlib.sha256(predictions.tobytes() + bytes([seed % 256])).digest()
    for path in (made.model / "model.safetensors", made.package / "model.onnx"):
        path.write_bytes(path.name.encode() + content)
    write_program(made.package / "model.pt2", {"data/weights/weight_0": content, **members})
    weights = sha256_file(made.model / "model.safetensors")
    network = architecture(num_classes=len(data.classes), image_shape=list(data.image_shape))
    changes = {"classes": data.classes, "dataset_digest": data.digest, "parameters": {"epochs": 1}, "seed": seed}
    model = ModelDocument(**facts(network, **changes), weights_sha256=weights).sealed()
    model.write(made.model / "model.json")
    evaluation = evaluation_of(predictions, labels, data.classes, dataset=data.digest, model=model.checksum)
    evaluation.write(made.evaluation / "evaluation.json")
    programs = {name: fingerprint(made.package / name) for name in ("model.onnx", "model.pt2")}
    package = package_of(
        classes=data.classes,
        image_shape=data.image_shape,
        dataset_digest=data.digest,
        model_digest=model.checksum,
        weights_sha256=weights,
        test_accuracy=evaluation.accuracy,
        predictions_sha256=sha256_file(made.evaluation / "predictions.npy"),
        metrics={"accuracy": evaluation.accuracy},
        files=programs,
    )
    package.write(made.package / "package.json")
    return made


def write_program(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a torch.export program of these members, and the one by which PyTorch knows it."""
    with ZipFile(path, "w") as file:
        for name, content in {"archive_format": b"pt2", **members}.items():
            file.writestr(ZipInfo(f"model/{name}"), content)  # without a time: equal members, equal files


def evaluation_of(
    predictions: np.ndarray, labels: np.ndarray, classes: Sequence[str], dataset: str, model: str
) -> EvaluationDocument:
    """Return the document of accepted predictions (float32, N x classes), for the digests of dataset and model."""
    return EvaluationDocument(
        accepted=True,
        reasons=[],
        min_accuracy=0.0,
        min_recall=0.0,
        **dict(measure(predictions, labels, classes)),
        dataset="Light & dark",
        dataset_digest=dataset,
        model_digest=model,
        code_version="0" * 12,
        seconds={},
    )


def package_of(*, classes: Sequence[str], image_shape: Sequence[int], **changes: Any) -> PackageDocument:
    """Return the document of a package, some fields of it changed."""
    file = Fingerprint(sha256="c" * 64, bytes=1)
    fields = {
        "dataset_digest": "d" * 64,
        "model_digest": "e" * 64,
        "weights_sha256": "f" * 64,
        "code_version": "0" * 12,
        "test_accuracy": 0.5,
        "predictions_sha256": "0" * 64,
        "metrics": {"accuracy": 0.5},
        "files": {"model.onnx": file, "model.pt2": file},
    }
    return PackageDocument(
        classes=list(classes),
        input=Tensor(name="images", dtype="uint8", shape=["batch", *image_shape]),
        output=Tensor(name="probabilities", dtype="float32", shape=["batch", len(classes)]),
        **{**fields, **changes},
    ).sealed()


def provenance_of(**changes: Any) -> Provenance:
    """Return what a version was made from, some fields of it changed."""
    texts = {"torch": "2", "device": "cpu", "code_version": "0" * 12, "revision": "", "image": "", "run_id": ""}
    fields = {
        "data": DataOrigin(name="made", source="here", raw_digest="0" * 64, parameters={}),
        "dataset_digest": "c" * 64,
        "test_split_digest": "a" * 64,
        "model_digest": "b" * 64,
        "parameters": {"epochs": 1},
        "seed": 0,
        "threads": 1,
        **texts,
        "time": "2026-01-01T00:00:00+00:00",
    }
    return Provenance(**{**fields, **changes})


def version_of(package: PackageDocument, **changes: Any) -> VersionDocument:
    """Return the document of a version with a package, some fields of it changed."""
    fields = {
        "name": "m",
        "version": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "files": {"predictions.npy": Fingerprint(sha256="c" * 64, bytes=1)},
        "provenance": provenance_of(),
    }
    return VersionDocument(
        package_digest=package.digest,
        metrics=package.metrics,
        classes=package.classes,
        input=package.input,
        output=package.output,
        **{**fields, **changes},
    )


def figures_of(**changes: Any) -> Figures:
    """Return a comparison that the challenger wins, some fields of it changed."""
    fields = {
        "champion": 1,
        "champion_accuracy": 0.5,
        "challenger_accuracy": 0.75,
        "images": 100,
        "n01": 30,
        "n10": 5,
        "p_value": 0.01,
        "significance": 0.05,
        "rescored": False,
        "decided_before": 0,
    }
    return Figures(**{**fields, **changes})


def fingerprint(path: Path) -> Fingerprint:
    """Return the SHA-256 and the size of a file."""
    return Fingerprint(sha256=sha256_file(path), bytes=path.stat().st_size)


def right(images: int, *ranges: range) -> np.ndarray:
    """Return an array (bool, N) that is true in `ranges`."""
    found = np.zeros(images, bool)
    for numbers in ranges:
        found[numbers] = True
    return found
