"""Packages of networks with random weights, which take as much time as trained ones, for the benches that predict."""

from pathlib import Path

import measure  # noqa: F401 (puts the repository's root on the path)

from components.shared.evaluation.classifier import Classifier
from components.shared.evaluation.programs import write_programs
from components.shared.models.document import ModelDocument
from components.shared.models.factory import build
from components.shared.models.saved_model import Model
from tests.models.documents import architecture, facts, history
from tests.small_packages import fingerprint, package_of

SHAPES = {"lenet5": [1, 32, 32], "resnet18": [3, 224, 224]}


def write_package(folder: Path, network: str) -> None:
    """Export a network for images of its shape."""
    folder.mkdir()
    design = architecture(name=network, image_shape=SHAPES[network])
    document = ModelDocument(**facts(design), weights_sha256="0" * 64).sealed()
    made = package_of(classes=document.classes, image_shape=SHAPES[network])
    write_programs(Classifier(Model(build(design), document, history())), folder, made, name=network, opset=18)
    files = {name: fingerprint(folder / name) for name in ("model.onnx", "model.pt2")}
    package_of(classes=document.classes, image_shape=SHAPES[network], files=files).write(folder / "package.json")
