"""The normalization of pixels: pytest tests/models/test_normalize.py"""

import pytest
import torch
from torch import Tensor, nn

from components.shared.models.normalize import normalize


def test_each_channel_has_mean_0_and_deviation_1() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shares = images.double().div(255)
    mean, std = shares.mean((0, 2, 3)).float(), shares.std((0, 2, 3), correction=0).float()
    result = normalize(images, mean, std)
    assert result.dtype == torch.float32
    assert torch.allclose(result.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(result.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


@pytest.mark.slow
def test_normalize_can_be_exported_for_any_batch() -> None:
    class Normalize(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return normalize(images, torch.tensor([0.1]), torch.tensor([0.3]))

    images = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    program = torch.export.export(Normalize(), (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert torch.allclose(program.module()(images), Normalize()(images))
