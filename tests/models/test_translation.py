"""Networks as programs and in ONNX: pytest tests/models/test_translation.py"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from components.shared.core.errors import UserError
from components.shared.models.translation import trace, translate
from components.shared.parameters.training import TrainingRecipe
from components.train import train
from tests.parameters.texts import recipe_text
from tests.trained_digits import write_digits


class Bessel(nn.Module):
    """A network with a function that ONNX does not have."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = torch.special.bessel_j0(images.float().mean(dim=(2, 3)))
        return logits


class Branching(nn.Module):
    """A network that looks at the pixels to choose its way."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() if images.sum() > 0 else -images.float()


class Smoothed(nn.Module):
    """A network that scales down in a way that ONNX has since opset 18."""

    def forward(self, images: Tensor) -> Tensor:
        smooth = nn.functional.interpolate(images.float(), scale_factor=0.5, mode="bicubic", antialias=True)
        return smooth.mean(dim=(2, 3))


@pytest.mark.slow
def test_a_network_that_needs_a_newer_opset_is_named() -> None:
    program = trace(Smoothed(), (1, 4, 4), "timm:smoothed")
    with pytest.raises(
        UserError, match=r"^timm:smoothed cannot be translated to onnx_opset=17, only to 18; give onnx_o"
    ):
        translate(program, "timm:smoothed", 17)


@pytest.mark.slow
def test_what_onnx_cannot_express_is_refused_by_name() -> None:
    program = trace(Bessel(), (1, 4, 4), "timm:bessel")
    with pytest.raises(UserError, match=r"^timm:bessel cannot be translated to ONNX \(.*bessel_j0.*; give another"):
        translate(program, "timm:bessel", 18)


@pytest.mark.slow
def test_a_network_that_cannot_be_traced_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^torch.export cannot trace timm:branching .*\(.+\); give another network"):
        trace(Branching(), (1, 4, 4), "timm:branching")


@pytest.mark.slow
def test_a_network_without_onnx_is_refused_before_training(tmp_path: Path) -> None:
    dataset = write_digits(tmp_path / "dataset", enlarge=20)  # 160 pixels, all that this network accepts
    recipe = recipe_text(TrainingRecipe, network="timm:test_vit_relpos", batch_size="32")
    with pytest.raises(UserError, match=r"^timm:test_vit_relpos cannot be translated to ONNX"):
        train(dataset=dataset, recipe=recipe, model=tmp_path / "model")
    assert not (tmp_path / "model").exists()
