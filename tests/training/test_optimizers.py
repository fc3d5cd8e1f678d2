"""The optimizers: pytest tests/training/test_optimizers.py"""

from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.nn import functional

from components.shared.parameters import training
from components.shared.training.optimizers import Optimizer, orthogonalize

OPTIMIZERS = get_args(training.Optimizer)


def small_network(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3, bias=bias))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bias", [True, False])
def test_every_optimizer_overfits_a_small_batch(name: str, bias: bool) -> None:
    network = small_network(bias)
    images, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    optimizer = Optimizer(name, network, learning_rate=0.02, weight_decay=0.01)
    first = last = functional.cross_entropy(network(images), labels)
    for _ in range(60):
        last = functional.cross_entropy(network(images), labels)
        last.backward()  # type: ignore[no-untyped-call]
        optimizer.step(share=1)
    assert last < first / 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_matrices_and_leaves_biases(name: str) -> None:
    network = small_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = Optimizer(name, network, learning_rate=0.2, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(share=0.5)
    for key, value in network.state_dict().items():
        assert torch.allclose(value, before[key] * (0.95 if key.endswith("weight") else 1)), key


@pytest.mark.parametrize("shape", [(6, 25), (84, 120), (40, 8), (10, 10)])
def test_orthogonalize_brings_singular_values_near_1(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrix) / max(1, shape[0] / shape[1]) ** 0.5
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ result @ right.T
    assert ((inner.diagonal() > 0.5) & (inner.diagonal() < 1.3)).all()
    assert torch.allclose(inner, inner.diagonal().diag(), atol=1e-3)


def test_a_muon_step_ignores_the_norm_of_a_gradient() -> None:
    steps = []
    for size in (1.0, 1000.0):
        network = small_network(bias=False)
        before = [p.detach().clone() for p in network.parameters()]
        optimizer = Optimizer("muon", network, learning_rate=0.1, weight_decay=0.0)
        for index, parameter in enumerate(network.parameters()):
            parameter.grad = size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        optimizer.step(share=0.5)
        steps.append([p.detach() - b for p, b in zip(network.parameters(), before, strict=True)])
    for small, large in zip(*steps, strict=True):
        assert torch.allclose(small, large, atol=1e-5)


@pytest.mark.slow  # torch.optim imports the compiler
@pytest.mark.parametrize(("name", "reference"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_sgd_and_adamw_take_the_steps_of_torch_optim(name: str, reference: Any) -> None:
    ours, theirs = small_network(), small_network()
    options = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {"weight_decay": 0.0}
    optimizer = Optimizer(name, ours, learning_rate=0.01, weight_decay=0.0)
    expected = reference(theirs.parameters(), lr=0.01, **options)
    for _ in range(5):
        for network in (ours, theirs):
            network(torch.linspace(0, 1, 128).view(2, 1, 8, 8)).square().sum().backward()
        optimizer.step(share=1)
        expected.step()
        expected.zero_grad()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, its, atol=1e-6)
