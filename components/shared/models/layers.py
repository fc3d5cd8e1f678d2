"""The activations and poolings that networks exchange, by name."""

import torch
from torch import Tensor, nn

from components.shared.models import catalogue

LEAK = 0.01
OWN = ("", catalogue.DEFAULT)  # in place of a name: the activation or pooling of the published network


class LeakyClipped(nn.Module):
    """The identity between 0 and 1, and a line of slope 0.01 below 0 and above 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return torch.lerp(x.clamp(0, 1), x, LEAK)


class RootMeanSquarePool2d(nn.AvgPool2d):
    """The root of the mean square of each window: `nn.LPPool2d(2)` over the root of the window's size.

    Where a window is all zeros, as in a black border, LPPool2d's gradient is nan; here it is zero.
    """

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C x H' x W'."""
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
