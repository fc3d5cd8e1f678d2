"""Normalize pixels for a network, in training and after it."""

import torch
from torch import Tensor


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return pixels (uint8, N x C x H x W) as float32 with mean 0 and standard deviation 1 in each channel.

    `mean` and `std` are (C), of pixels scaled to 0..1. torch.export can trace it.
    """
    factor, offset = 1 / (255 * std), mean / std
    return images.to(torch.float32).mul_(factor.view(-1, 1, 1)).sub_(offset.view(-1, 1, 1))
