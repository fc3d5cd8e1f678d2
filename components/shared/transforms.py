"""What happens to a batch of images between the dataset and the network: normalisation and augmentation, as whole-batch
tensor operations."""

import torch
from torch import Tensor


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels (uint8, N x C x H x W) to float32 of mean 0 and standard deviation 1; `mean` and `std` are (C), of 0..1.

    torch.export can trace it.
    """
    scale = 1 / (255 * std)
    return images.to(torch.float32) * scale.view(-1, 1, 1) - (mean / std).view(-1, 1, 1)
