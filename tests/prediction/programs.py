"""A small ONNX program that tells light pictures from dark ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper

from components.shared.core.document import Fingerprint
from components.shared.core.files import sha256_file
from components.shared.evaluation.exported_model import PackageDocument
from tests.small_packages import package_of

CLASSES = ["dark", "light"]


def write_package(folder: Path, image_shape: Sequence[int] = (1, 16, 16), **changes: Any) -> PackageDocument:
    """Write `model.onnx` and `package.json`: the probability of light is the logistic function of the mean pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    tensor, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    weights = onnx.helper.make_tensor("weights", kinds.FLOAT, [1, 2], np.array([-0.05, 0.05], np.float32))
    middle = onnx.helper.make_tensor("middle", kinds.FLOAT, [1], np.array([127.5], np.float32))
    axes = onnx.helper.make_tensor("axes", kinds.INT64, [1], np.array([1]))
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["pixels"], to=kinds.FLOAT),
        onnx.helper.make_node("Flatten", ["pixels"], ["rows"]),
        onnx.helper.make_node("ReduceMean", ["rows", "axes"], ["means"], keepdims=1),
        onnx.helper.make_node("Sub", ["means", "middle"], ["centred"]),
        onnx.helper.make_node("MatMul", ["centred", "weights"], ["logits"]),
        onnx.helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "light",
        [tensor("images", kinds.UINT8, ["batch", *image_shape])],
        [tensor("probabilities", kinds.FLOAT, ["batch", len(CLASSES)])],
        [weights, middle, axes],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save_model(model, folder / "model.onnx")
    path = folder / "model.onnx"
    file = Fingerprint(sha256=sha256_file(path), bytes=path.stat().st_size)
    files = {"model.onnx": file, "model.pt2": Fingerprint(sha256="c" * 64, bytes=1)}
    package = package_of(classes=CLASSES, image_shape=image_shape, files=files, **changes)
    package.write(folder / "package.json")
    return package
