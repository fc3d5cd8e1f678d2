"""The activations and poolings by name, which replace those of a network."""

import torch
from torch import Tensor, nn

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
