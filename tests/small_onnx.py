"""Small classifiers as ONNX programs: pixels as numbers, a row for each image, and a softmax of what the nodes make."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper


def save_classifier(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, NDArray[Any]],
    image_shape: Sequence[int],
    classes: int,
) -> Path:
    """Write a program whose nodes turn `rows` (float32, N x pixels) into `logits` (N x classes); N may be any."""
    before = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["rows"]),
    ]
    after = helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *image_shape])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph([*before, *nodes, after], "small", [images], [probabilities], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
