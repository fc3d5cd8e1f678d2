"""The feature maps of LeNet-5 as outputs of its ONNX program, beside the probabilities."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx

from components.shared.core.document import Part, Size
from components.shared.data.dataset import Images
from components.shared.evaluation.inference import load_onnx

SCOPES = "pkg.torch.onnx.name_scopes"  # the modules that a node belongs to, as torch.onnx notes it
# A layer's maps are what enters the module after it: with the activation, wherever the network has that.
NEXT = {"C1": "network.s2", "S2": "network.c3", "C3": "network.s4", "S4": "network.c5"}
RESHAPES = ("Reshape", "Flatten")
BATCHES = (1, 16)  # sizes in which the probabilities are compared


class Layer(Part):
    """A layer of LeNet-5: its name in the paper, the output with its maps, and their number and size."""

    name: str
    output: str
    maps: Size
    height: Size
    width: Size


class OtherProbabilities(Exception):
    """With the maps as outputs, ONNX Runtime computes other probabilities."""


def add_maps(package: Path, target: Path, images: Images) -> list[Layer]:
    """Write the program at `package` with the maps as further outputs to `target`; return the layers.

    A program of another network has no such layers, and is copied as it is. Raises OtherProbabilities, and writes
    nothing, unless the probabilities of the images (uint8, N x C x H x W) stay the same, bit for bit.
    """
    program = onnx.load(package)
    layers = list(_layers(program))
    if len(layers) < len(NEXT):
        shutil.copyfile(package, target)
        return []
    element = onnx.TensorProto.FLOAT
    outputs = [onnx.helper.make_tensor_value_info(layer.output, element, None) for layer in layers]
    program.graph.output.extend(outputs)
    onnx.save_model(program, target)
    if not _are_equal(package, target, images):
        target.unlink()
        raise OtherProbabilities
    return layers


def _layers(program: onnx.ModelProto) -> Iterator[Layer]:
    shapes = {value.name: value.type.tensor_type.shape.dim for value in program.graph.value_info}
    for name, module in NEXT.items():
        tensor = _input_of(program, module)
        if tensor in shapes and len(shapes[tensor]) == 4:
            maps, height, width = (dimension.dim_value for dimension in shapes[tensor][1:])
            yield Layer(name=name, output=tensor, maps=maps, height=height, width=width)


def _input_of(program: onnx.ModelProto, module: str) -> str:
    """Return the tensor that a module makes something of, before it is flattened; empty if there is no such module."""
    made_from_images = {value.name for value in program.graph.input}
    makers: dict[str, onnx.NodeProto] = {}
    found = ""
    for node in program.graph.node:
        used = [tensor for tensor in node.input if tensor in made_from_images]
        if used:
            made_from_images.update(node.output)
            makers |= dict.fromkeys(node.output, node)
            found = found or (used[0] if module in _scopes(node) else "")
    while found in makers and makers[found].op_type in RESHAPES:
        found = makers[found].input[0]
    return found


def _scopes(node: onnx.NodeProto) -> list[str]:
    texts = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
    return list(ast.literal_eval(texts[0])) if texts else []


def _are_equal(package: Path, program: Path, images: Images) -> bool:
    """Return whether two programs give the same probabilities, bit for bit, one by one and in batches."""
    one, other = load_onnx(package, threads=1), load_onnx(program, threads=1)
    batches = [images[i : i + size] for size in BATCHES for i in range(0, len(images), size)]
    return all(one(batch).tobytes() == other(batch).tobytes() for batch in batches)
