"""Small classifiers of 4 x 4 pixels as ONNX, and versions that keep test images for them."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from components.shared.registry.document import VersionDocument
from components.shared.serving.smoke_test import Samples
from tests.small_onnx import save_classifier
from tests.small_packages import CLASSES, package_of, version_of

NAME = "shades"
SHAPE = (1, 4, 4)


def write_onnx(path: Path, seed: int) -> Path:
    """Write a classifier with random weights; its batch may have any size."""
    weights = np.random.default_rng(seed).normal(0, 0.01, (16, 2)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["rows", "weights"], ["logits"])]
    return save_classifier(path, nodes, {"weights": weights}, SHAPE, 2)


def samples_of(path: Path, images: int = 20) -> Samples:
    """Random images, and what the classifier at `path` predicts for them."""
    made: NDArray[np.uint8] = np.random.default_rng(9).integers(0, 256, (images, *SHAPE), np.uint8)
    (found,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": made})
    return Samples(made, found)


def document_of(version: int) -> VersionDocument:
    """The document of a version, with what a smoke test reads of it."""
    package = package_of(classes=CLASSES, image_shape=SHAPE, dataset_digest=f"{version:064x}")
    return version_of(package, name=NAME, version=version)
