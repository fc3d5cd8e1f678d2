"""A trained network as one function from pixels to probabilities, for evaluation and export."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.shared.data.dataset import Images
from components.shared.evaluation.inference import Classify
from components.shared.models.normalize import normalize
from components.shared.models.saved_model import Model


class Classifier(nn.Module):
    """Normalization, network, temperature and softmax in one module that torch.export can trace."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.module
        self.name = model.document.architecture.name
        self.temperature = model.document.temperature
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (uint8, N x C x H x W); return probabilities (float32, N x classes)."""
        logits: Tensor = self.network(normalize(images, self.mean, self.std))
        if self.temperature != 1:  # else old models would be other programs
            logits = logits / self.temperature
        return logits.softmax(dim=1)


def on_arrays(module: Callable[[Tensor], Tensor]) -> Classify:
    """Return the module as a function of NumPy arrays, without gradients."""

    @torch.inference_mode()
    def classify(images: Images) -> NDArray[np.float32]:
        return module(torch.from_numpy(images)).numpy()

    return classify
