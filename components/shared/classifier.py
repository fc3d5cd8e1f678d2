"""A trained network as one function from pixels to probabilities, and its use on a whole split."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.shared.dataset import Images, Labels
from components.shared.models import Model
from components.shared.progress import Progress
from components.shared.transforms import normalise

BATCH = 256

Classify = Callable[[Images], NDArray[np.float32]]  # uint8, N x C x H x W -> probabilities, N x classes


class Classifier(nn.Module):
    """Normalisation, network and softmax in one module that torch.export can trace."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.module
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images (uint8, N x C x H x W) to probabilities (float32, N x classes)."""
        logits: Tensor = self.network(normalise(images, self.mean, self.std))
        return logits.softmax(dim=1)


def on_arrays(module: Callable[[Tensor], Tensor]) -> Classify:
    """The module as a function of NumPy arrays, without gradients."""

    @torch.inference_mode()
    def classify(images: Images) -> NDArray[np.float32]:
        return module(torch.from_numpy(images)).numpy()

    return classify


def predict(classify: Classify, shards: Sequence[tuple[Images, Labels]], progress: Progress) -> NDArray[np.float32]:
    """The probabilities (float32, N x classes) of all images of `shards`, in batches of 256."""
    parts = []
    for images, _ in shards:
        for start in range(0, len(images), BATCH):
            batch = np.array(images[start : start + BATCH])  # a copy: torch wants memory that may be written to
            parts.append(classify(batch))
            progress.advance(len(batch))
    return np.concatenate(parts)
