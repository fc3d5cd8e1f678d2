"""A small ONNX program that tells light pictures from dark ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from PIL import Image

from components.shared.core.document import Fingerprint
from components.shared.core.files import sha256_file
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.registry.champion import Verdict
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.client import Store
from tests.small_onnx import save_classifier
from tests.small_packages import package_of, provenance_of

CLASSES = ["dark", "light"]


def write_package(
    folder: Path, image_shape: Sequence[int] = (1, 16, 16), slope: float = 0.05, **changes: Any
) -> PackageDocument:
    """Write `model.onnx` and `package.json`: the probability of light is the logistic function of the mean pixel."""
    weights = {
        "weights": np.array([[-slope, slope]], np.float32),
        "middle": np.array([127.5], np.float32),
        "axes": np.array([1]),
    }
    nodes = [
        helper.make_node("ReduceMean", ["rows", "axes"], ["means"], keepdims=1),
        helper.make_node("Sub", ["means", "middle"], ["centred"]),
        helper.make_node("MatMul", ["centred", "weights"], ["logits"]),
    ]
    path = save_classifier(folder / "model.onnx", nodes, weights, image_shape, len(CLASSES))
    file = Fingerprint(sha256=sha256_file(path), bytes=path.stat().st_size)
    files = {"model.onnx": file, "model.pt2": Fingerprint(sha256="c" * 64, bytes=1)}
    package = package_of(classes=CLASSES, image_shape=image_shape, files=files, **changes)
    package.write(folder / "package.json")
    return package


def register_package(store: Store, package: Path, name: str, wins: bool = True) -> int:
    """Register a package, and return the number of its version, which becomes the champion if it wins."""
    document, model = PackageDocument.read(package / "package.json"), RegisteredModel(store, name)
    digests = {"test_split_digest": "a" * 64, "model_digest": "b" * 64}
    entry = model.reserve_version(document.digest, accuracy=0.5, images=10, run_id="run", **digests)
    for other in ("model.safetensors", "model.json", "model.pt2", "predictions.npy"):
        (package / other).write_bytes(b"-")
    files = {path.name: (path, "") for path in package.iterdir() if path.name != "model.onnx"}
    files[model.versions.onnx_path] = (package / "model.onnx", "")
    model.versions.upload(entry, files, document, provenance_of(), package)
    model.finalize(entry.version, lambda _: Verdict(wins, None, "made so"))
    return entry.version


def write_shades(folder: Path, count: int) -> None:
    """Write pictures of which the higher numbers are lighter, in a folder for each class; one of them is broken."""
    for number in range(count):
        path = folder / CLASSES[number >= count // 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), number * 6 + 2, np.uint8)).save(path)
    (folder / "light" / "30.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
