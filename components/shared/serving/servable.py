"""A version as it is served: where KServe loads it from, and the test images that prove what is served."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from components.shared.core.errors import UserError
from components.shared.registry.document import VersionDocument
from components.shared.registry.registry import RegisteredModel
from components.shared.serving.inference_service import Predictor, predictor_of
from components.shared.serving.open_inference import Connect
from components.shared.serving.smoke_test import Samples, SmokeTest, smoke_test


class Servable(NamedTuple):
    """A version of the registry that can be served."""

    target: Predictor
    document: VersionDocument
    samples: Samples | None

    def test(self, connect: Connect) -> SmokeTest:
        """Ask a server for the kept images. Raises NotServed if it serves something else."""
        assert self.samples
        return smoke_test(connect, self.document, self.samples)


def servable(model: RegisteredModel, version: int, has_test: bool = True) -> Servable:
    """Return a version that can be served; without images if it need not be tested.

    Raises UserError if there is no such version or it keeps no images, and CorruptDataError if the stored model is not
    the registered one: KServe loads what is there, unchecked.
    """
    document = model.read_version(version)
    samples = _samples(model, document) if has_test else None
    with tempfile.TemporaryDirectory() as folder:
        model.versions.download(document, model.versions.onnx_path, Path(folder) / "model.onnx")
    return Servable(predictor_of(model.uri(version), version), document, samples)


def _samples(model: RegisteredModel, document: VersionDocument) -> Samples:
    found = model.versions.read_samples(document)
    if found is None:
        raise UserError(
            f"{model.name} version {document.version} keeps no test images, by which it could be tested once it serves",
            f"deploy it untested: python pipeline.py deploy {model.name}/{document.version} --no-smoke-test",
        )
    return Samples(*found)
