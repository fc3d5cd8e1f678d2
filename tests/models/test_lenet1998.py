"""LeNet-5 as published in 1998: pytest tests/models/test_lenet1998.py"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from components.evaluate import evaluate
from components.export import export
from components.shared.core.errors import UserError
from components.shared.core.files import read_json
from components.shared.data.dataset import open_dataset
from components.shared.data.sources.digits import read_digits
from components.shared.models import factory, saved_model
from components.shared.models.document import Architecture
from components.shared.models.lenet1998 import (
    BITMAPS,
    CONNECTIONS,
    REJECTION,
    EuclideanRBF,
    LeNet5Of1998,
    Subsampling,
    TableConvolution,
    bitmaps,
    squash,
)
from components.shared.models.normalize import normalize
from components.shared.parameters.evaluation import EvaluateRecipe, ExportRecipe
from components.shared.training.optimizers import Optimizer
from tests.models.documents import facts, history
from tests.parameters.texts import recipe_text
from tests.trained_digits import write_dataset

SHAPE = (1, 32, 32)
# Table I of the paper, column by column: the maps of S2 that each map of C3 sees.
TABLE = ["012", "123", "234", "345", "045", "015"]
TABLE += ["0123", "1234", "2345", "0345", "0145", "0125", "0134", "1245", "0235", "012345"]


def network(seed: int = 0, num_classes: int = 10) -> LeNet5Of1998:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return LeNet5Of1998(num_classes=num_classes, image_shape=SHAPE)


def digits(count: int) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits (float32, count x 1 x 32 x 32, from the paper's -0.1 to 1.175) and their labels."""
    pixels, labels = read_digits()
    images = pixels[:count].reshape(-1, 1, 8, 8).repeat(4, 2).repeat(4, 3) * (1.275 / 16) - 0.1
    return torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels[:count])


def learn(net: LeNet5Of1998, images: Tensor, labels: Tensor, steps: int) -> list[float]:
    """The loss before each step of AdamW on the whole batch."""
    optimizer = Optimizer("adamw", net, learning_rate=0.005, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = net.loss(net(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(share=1)
        losses.append(loss.item())
    return losses


def connections(module: nn.Module, output: Tensor) -> int:
    """The connections into a layer as the paper counts them, those of biases among them; `output` is of one picture."""
    if isinstance(module, Subsampling):
        return output.numel() * (2 * 2 + 1)
    if isinstance(module, EuclideanRBF):
        return module.centres.numel()
    places = output[0, 0].numel() if output.ndim == 4 else 1
    return places * sum(weights.numel() for weights in module.parameters())


def test_each_layer_has_the_papers_weights_and_connections() -> None:
    net, found = network(), {}
    for name, layer in net.named_children():
        layer.register_forward_hook(
            lambda module, _, output, name=name: found.update({name: connections(module, output)})
        )
    net(torch.zeros(1, *SHAPE))
    weights = {name: sum(p.numel() for p in layer.parameters()) for name, layer in net.named_children()}
    assert weights == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0}
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 60_000
    assert found == {
        "c1": 122_304,
        "s2": 5880,
        "c3": 151_600,
        "s4": 2000,
        "c5": 48_120,
        "f6": 10_164,
        "output": 840,
    }
    assert sum(found.values()) == 340_908


def test_every_map_of_c3_sees_the_maps_of_table_1() -> None:
    layer = network().c3
    seen = [""] * 16
    nothing = layer(torch.zeros(1, 6, 14, 14))
    for source in range(6):
        maps = torch.zeros(1, 6, 14, 14)
        maps[0, source] = torch.rand(14, 14)
        for target in (layer(maps) - nothing).abs().amax(dim=(0, 2, 3)).nonzero().flatten().tolist():
            seen[target] += str(source)
    assert seen == TABLE


def test_c3_sums_the_convolutions_of_its_connections() -> None:
    layer, maps = TableConvolution(CONNECTIONS, 5), torch.rand(2, 6, 14, 14)
    kernels = iter(layer.weight)
    for column, (sources, found) in enumerate(zip(TABLE, layer(maps).unbind(1), strict=True)):
        parts = [functional.conv2d(maps[:, [int(s)]], next(kernels)[None, None])[:, 0] for s in sources]
        assert torch.allclose(found, torch.stack(parts).sum(0) + layer.bias[column], atol=1e-5)


def test_subsampling_scales_and_shifts_the_sum_of_a_window() -> None:
    layer = Subsampling(2)
    layer.coefficient.data, layer.bias.data = torch.tensor([0.5, -1.0]), torch.tensor([3.0, 0.25])
    maps = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 2, 2, 2)
    assert layer(maps).flatten().tolist() == [8.0, -9.75]


def test_squash_maps_1_to_1_where_its_curvature_is_largest() -> None:
    places = torch.linspace(-3, 3, 601, dtype=torch.float64)
    values = squash(places)
    bend = values.diff().diff().abs()
    assert squash(torch.tensor([-1.0, 0.0, 1.0])).tolist() == pytest.approx([-1, 0, 1], abs=1e-4)
    assert abs(places[1:-1][bend.argmax()]).item() == pytest.approx(1, abs=0.02)
    assert values.abs().max() < 1.7159


def test_the_output_is_the_squared_distance_to_each_bitmap() -> None:
    layer = EuclideanRBF(torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
    assert layer(torch.tensor([[0.5, 2.0]])).tolist() == [[9.25, 1.25]]  # 0.25 + 9 and 0.25 + 1


def test_the_penalty_is_4_for_each_differing_pixel() -> None:
    pictures = bitmaps()
    others = (pictures[3] != pictures).sum(1)
    assert torch.equal(network().output(pictures[3:4])[0], 4.0 * others)
    assert others[3] == 0


def test_the_bitmaps_are_ten_different_images_of_7_by_12() -> None:
    pictures = bitmaps()
    assert [[len(row) for row in line.split()] for line in BITMAPS.split("\n") if line] == [[7] * 10] * 12
    assert pictures.shape == (10, 84)
    assert torch.unique(pictures).tolist() == [-1, 1]
    drawn = ["".join("#" if pixel > 0 else "." for pixel in row) for row in pictures[1].view(12, 7)]
    assert drawn == ["...##..", "..###..", ".####.."] + ["...##.."] * 8 + [".######"]
    assert min((a != b).sum().item() for i, a in enumerate(pictures) for b in pictures[:i]) >= 10


def test_logits_are_the_negative_penalties() -> None:
    net = network()
    logits = net(digits(5)[0])
    assert logits.shape == (5, 10)
    assert logits.max() <= 0
    assert logits[0, 0].item() == pytest.approx(-84, abs=3)  # fresh weights are small: F6 says nothing yet


def test_the_loss_is_equation_9() -> None:
    penalties, labels = [[2.0, 5.0, 0.5], [1.0, 0.25, 7.0]], [0, 1]
    expected = [
        row[label] + math.log(math.exp(-REJECTION) + sum(math.exp(-y) for y in row))
        for row, label in zip(penalties, labels, strict=True)
    ]
    loss = network(num_classes=3).loss(-torch.tensor(penalties), torch.tensor(labels))
    assert loss.item() == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_initial_weights_are_uniform_within_2_4_over_the_fan_in() -> None:
    net = network()
    fan_ins = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    drawn = [(weights, fan_in) for name, fan_in in fan_ins.items() for weights in net.get_submodule(name).parameters()]
    for sources, *parts in zip(TABLE, torch.split(net.c3.weight, [len(s) for s in TABLE]), net.c3.bias, strict=True):
        drawn += [(weights, 25 * len(sources)) for weights in parts]
    shares = [weights.detach() * fan_in / 2.4 for weights, fan_in in drawn]
    assert max(share.abs().max().item() for share in shares) == pytest.approx(1, abs=1e-3)
    deviations = [share.std().item() for share in shares if share.numel() >= 75]
    assert deviations == pytest.approx([1 / math.sqrt(3)] * 21, rel=0.15)


def test_every_weight_has_a_gradient_and_the_bitmaps_are_fixed() -> None:
    net, (images, labels) = network(), digits(32)
    before = {name: weights.clone() for name, weights in net.state_dict().items()}
    learn(net, images, labels, steps=2)
    changed = {name for name, weights in net.state_dict().items() if (weights != before[name]).any()}
    assert changed == {name for name, _ in net.named_parameters()} == before.keys() - {"output.centres"}


@pytest.mark.slow
def test_it_overfits_32_images() -> None:
    net, (images, labels) = network(), digits(32)
    losses = learn(net, images, labels, steps=100)
    assert losses[1] < losses[0]
    assert losses[-1] < 5 < 70 < losses[0]
    assert torch.equal(net(images).argmax(1), labels)


def test_equal_seeds_give_bit_identical_weights() -> None:
    states = []
    for seed in (3, 3, 4):
        net = network(seed)
        learn(net, *digits(32), steps=3)
        states.append(torch.cat([weights.flatten() for weights in net.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": [3, 32, 32]}, "accepts grey images, not images of 3 channels; give network=lenet5"),
        ({"image_shape": [1, 28, 28]}, r"not 28 x 28; .*image_size=32"),
        ({"num_classes": 11}, "10 digits, too few for 11 classes; give network=lenet5"),
        ({"activation": "relu"}, "has no activation=relu; give activation=default"),
        ({"pooling": "max"}, "has no pooling=max; give pooling=default"),
        ({"bias": False}, "has biases, not bias=False; give bias=True"),
    ],
)
def test_what_was_not_published_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        factory.build(
            Architecture.model_validate(
                {"name": "lenet5_1998", "num_classes": 10, "image_shape": list(SHAPE)} | changes
            )
        )


@pytest.mark.slow
def test_it_is_saved_evaluated_and_exported_with_parity(tmp_path: Path) -> None:
    data = open_dataset(write_dataset(tmp_path / "dataset"))
    architecture = Architecture(name="lenet5_1998", num_classes=10, image_shape=list(data.image_shape))
    figures = {"mean": data.document.mean, "std": data.document.std}
    images, labels = (torch.from_numpy(array[:300]) for array in data.load("train"))
    net = network()
    learn(net, normalize(images, *map(torch.tensor, figures.values())), labels, steps=40)
    (tmp_path / "model").mkdir()
    origin = {"classes": data.classes, "dataset_digest": data.digest}
    saved_model.save(tmp_path / "model", net, history(), **facts(architecture, **figures, **origin))
    given: dict[str, Any] = {"dataset": tmp_path / "dataset", "model": tmp_path / "model"}
    written: dict[str, Any] = {name: tmp_path / name for name in ("metrics", "classification", "report", "evaluation")}
    gates: dict[str, Any] = {"min_accuracy": 0.5, "min_recall": 0.0, "threads": 1}
    evaluate(**given, recipe=recipe_text(EvaluateRecipe, **gates), **written)
    export(**given, recipe=recipe_text(ExportRecipe, **gates), package=tmp_path / "package")
    package = read_json(tmp_path / "package/package.json", "torch2kubeflow/package")
    assert package["test_accuracy"] > 0.5
    measured = read_json(tmp_path / "package/measurements.json", "torch2kubeflow/measurements")
    assert measured["parity"]["images"] == 150
