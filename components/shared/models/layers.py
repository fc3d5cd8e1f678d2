"""The activations and poolings by name, and their exchange in a network."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from components.shared.core.errors import UserError
from components.shared.models import catalogue

LEAK = 0.01
UNCHANGED = ("", catalogue.DEFAULT)  # the activation or pooling of the published network


class LeakyClipped(nn.Module):
    """The identity between 0 and 1, and lines of slope 0.01 below 0 and above 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        return torch.lerp(x.clamp(0, 1), x, LEAK)


class RootMeanSquarePool2d(nn.AvgPool2d):
    """The root of the mean square of each window: `nn.LPPool2d(2)` divided by the root of the window's size.

    For a window of zeros, as in a black border, LPPool2d's gradient is nan; here it is zero.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to N x C x H' x W'."""
        return super().forward(x.square()).clamp_min(torch.finfo(x.dtype).tiny).sqrt()


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,  # its slope below 0 is 0.01 too
    "leaky_clipped": LeakyClipped,
}
POOLINGS: dict[str, type[nn.MaxPool2d | nn.AvgPool2d]] = {
    "max": nn.MaxPool2d,
    "avg": nn.AvgPool2d,
    "rms": RootMeanSquarePool2d,
}


def replace_activation(network: nn.Module, name: str, activation: str) -> None:
    """Replace every ReLU of a network. Raises UserError if it has none."""
    if not _replace(network, (nn.ReLU, nn.ReLU6), lambda _: ACTIVATIONS[activation]()):
        raise UserError(f"{name} has no ReLU that activation={activation} could replace", "give activation=default")


def replace_pooling(network: nn.Module, what: str, pooling: str) -> None:
    """Replace every max pooling of a network. Raises UserError if it has none."""

    def other(old: nn.Module) -> nn.Module:
        assert isinstance(old, nn.MaxPool2d)
        return POOLINGS[pooling](old.kernel_size, old.stride, old.padding, ceil_mode=old.ceil_mode)

    if not _replace(network, (nn.MaxPool2d,), other):
        raise UserError(f"{what} has no max pooling that pooling={pooling} could replace", "give pooling=default")


def _replace(network: nn.Module, kinds: tuple[type[nn.Module], ...], other: Callable[[nn.Module], nn.Module]) -> int:
    """Replace every module whose type is one of `kinds` by `other(module)`; return how many there were."""
    found = [(n, module) for n, module in network.named_modules(remove_duplicate=False) if type(module) in kinds]
    for name, module in found:
        network.set_submodule(name, other(module))
    return len(found)


def remove_bias(network: nn.Module) -> None:
    """Remove the bias of every convolution and linear layer."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_parameter("bias", None)
