"""Feature maps as outputs of a program: pytest tests/runner/demo/test_feature_maps.py"""

import lzma
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from components.shared.evaluation.classifier import Classifier
from components.shared.models import factory, saved_model
from components.shared.models.translation import trace, translate
from runner.demo import feature_maps
from runner.demo.feature_maps import Layer, OtherProbabilities, add_maps
from tests.conftest import ROOT
from tests.models.documents import architecture, facts, history

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 1, 32, 32), np.uint8)
SHAPES = {"C1": (6, 28, 28), "S2": (6, 14, 14), "C3": (16, 10, 10), "S4": (16, 5, 5)}


def write_program(folder: Path, **network: Any) -> tuple[Path, torch.nn.Module]:
    """Write the program of a network with random weights; return its path and the network."""
    torch.manual_seed(0)
    built = architecture(**network)
    saved_model.save(folder, factory.build(built), history(), **facts(built))
    classifier = Classifier(saved_model.load(folder))
    path = folder / "package.onnx"
    onnx.save_model(translate(trace(classifier, built.image_shape, built.name), built.name, 18), path)
    return path, classifier


def outputs(path: Path, images: np.ndarray = IMAGES) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        {},
        {"activation": "tanh", "pooling": "avg"},
        {"activation": "leaky_clipped", "pooling": "rms", "bias": False},
        {"name": "lenet5_1998", "activation": "default", "pooling": "default"},
    ],
    ids=lambda network: " ".join(map(str, network.values())) or "lenet5",
)
def test_maps_leave_the_probabilities_as_they_are(network: dict[str, Any], tmp_path: Path) -> None:
    package, _ = write_program(tmp_path, **network)
    layers = add_maps(package, tmp_path / "model.onnx", IMAGES)
    assert {layer.name: (layer.maps, layer.height, layer.width) for layer in layers} == SHAPES
    expected, found = outputs(package), outputs(tmp_path / "model.onnx")
    assert found["probabilities"].tobytes() == expected["probabilities"].tobytes()
    assert {layer.output: found[layer.output].shape[1:] for layer in layers} == {
        layer.output: SHAPES[layer.name] for layer in layers
    }


@pytest.mark.slow
def test_maps_are_those_that_pytorch_computes(tmp_path: Path) -> None:
    package, classifier = write_program(tmp_path)
    layers = add_maps(package, tmp_path / "model.onnx", IMAGES)
    found, seen = outputs(tmp_path / "model.onnx"), {}
    network = classifier.network
    assert isinstance(network, torch.nn.Module)
    for module, name in (("s2", "C1"), ("c3", "S2"), ("s4", "C3")):
        network.get_submodule(module).register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: inputs[0].numpy()})
        )
    network.get_submodule("c5").register_forward_pre_hook(
        lambda _, inputs: seen.update({"S4": inputs[0].view(-1, *SHAPES["S4"]).numpy()})
    )
    with torch.inference_mode():
        classifier(torch.from_numpy(IMAGES))
    for layer in layers:
        np.testing.assert_allclose(found[layer.output], seen[layer.name], rtol=1e-4, atol=1e-4)


def test_a_package_of_cd652ef_has_maps(tmp_path: Path) -> None:
    store = lzma.decompress((ROOT / "tests/fixtures/cd652ef/store.tar.xz").read_bytes())
    with tarfile.open(fileobj=BytesIO(store)) as tar:
        file = tar.extractfile("objects/models/digits/versions/1/serving/digits/1/model.onnx")
        assert file
        (tmp_path / "package.onnx").write_bytes(file.read())
    layers = add_maps(tmp_path / "package.onnx", tmp_path / "model.onnx", IMAGES)
    assert [layer.name for layer in layers] == [*SHAPES]


def _small_program(path: Path) -> Path:
    """Write a program that has no layers: the share of each half of the image."""
    images = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", 1, 32, 32])
    probabilities = helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", 2])
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "halves"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "last"], ["means"], keepdims=0),
        helper.make_node("Softmax", ["means"], ["probabilities"], axis=1),
    ]
    values = [
        helper.make_tensor("halves", onnx.TensorProto.INT64, [3], [0, 2, 512]),
        helper.make_tensor("last", onnx.TensorProto.INT64, [1], [2]),
    ]
    graph = helper.make_graph(nodes, "halves", [images], [probabilities], values)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_another_network_is_copied_as_it_is(tmp_path: Path) -> None:
    package = _small_program(tmp_path / "package.onnx")
    assert add_maps(package, tmp_path / "model.onnx", IMAGES) == []
    assert (tmp_path / "model.onnx").read_bytes() == package.read_bytes()


def test_maps_that_change_a_probability_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(program: onnx.ModelProto) -> list[Layer]:
        program.graph.initializer[0].CopyFrom(helper.make_tensor("halves", onnx.TensorProto.INT64, [3], [0, 512, 2]))
        program.graph.node[2].input[1] = "first"
        program.graph.initializer.append(helper.make_tensor("first", onnx.TensorProto.INT64, [1], [1]))
        return [Layer(name=name, output="flat", maps=1, height=1, width=1) for name in ("C1",)]

    package = _small_program(tmp_path / "package.onnx")
    monkeypatch.setattr(feature_maps, "_layers", found)
    monkeypatch.setattr(feature_maps, "NEXT", {"C1": "network.s2"})
    with pytest.raises(OtherProbabilities):
        add_maps(package, tmp_path / "model.onnx", IMAGES)
    assert not (tmp_path / "model.onnx").exists()
