"""The program that is served: a package's `model.onnx`, with the model's name and the version for the answers."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.shared.core.errors import UserError
from components.shared.core.resources import thread_count
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.evaluation.inference import Classify, batch_size
from components.shared.prediction.rows import open_program
from components.shared.registry.registry import RegisteredModel

FOLDER_NAME = "model"  # of a package that no registry gives a name


class Served(NamedTuple):
    """A program that is ready to predict."""

    name: str
    version: str
    package: PackageDocument
    classify: Classify

    @property
    def sizes(self) -> list[int]:
        """Return the shape of an image (C, H, W)."""
        return self.package.input.sizes

    @property
    def images_at_once(self) -> int:
        """Return how many images can be predicted at once in bounded memory."""
        return batch_size(self.sizes)


def open_folder(folder: Path, threads: int, name: str = FOLDER_NAME) -> Served:
    """Open the package in a folder; its version is the start of its digest. Raises UserError if it is damaged."""
    program = open_program(folder / "model.onnx", folder / "package.json", str(folder), thread_count(threads))
    return _warm(Served(name, program.package.digest[:12], program.package, program.classify))


def open_version(model: RegisteredModel, version: int, threads: int) -> Served:
    """Open a version of the registry, whose files are checked by their digests. Raises UserError."""
    document = model.read_version(version)
    with tempfile.TemporaryDirectory(prefix="torch2kubeflow-") as scratch:
        onnx, package = Path(scratch) / "model.onnx", Path(scratch) / "package.json"
        model.versions.download_package(document, Path(scratch))
        program = open_program(onnx, package, f"{model.name}/{version}", thread_count(threads))
    if program.package.digest != document.package_digest:
        raise UserError(f"{model.uri(version)} holds another package than version.json says", document.REMEDY)
    return _warm(Served(model.name, str(version), program.package, program.classify))


def _warm(served: Served) -> Served:
    """Predict an empty image, so that the first request does not wait for what is prepared on first use."""
    served.classify(np.zeros((1, *served.sizes), np.uint8))
    return served
