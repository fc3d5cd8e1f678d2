"""The networks by name: pytest tests/models/test_factory.py"""

from typing import get_args

import pytest
import torch

from components.shared.core.errors import UserError
from components.shared.models import factory
from components.shared.parameters.training import Activation, Pooling
from tests.models.documents import LENET, architecture


def test_lenet5_has_the_papers_61706_weights() -> None:
    assert sum(p.numel() for p in factory.build(LENET).parameters()) == 61_706


def test_lenet5_without_bias_has_no_vectors() -> None:
    assert all(p.ndim > 1 for p in factory.build(architecture(bias=False)).parameters())


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_every_activation_and_pooling_gives_logits(activation: str, pooling: str) -> None:
    changes = {"num_classes": 3, "image_shape": [3, 32, 32], "activation": activation, "pooling": pooling}
    network = factory.build(architecture(**changes))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_leaky_clipped_has_slope_0_01_outside_0_to_1() -> None:
    activation = factory.build(architecture(activation="leaky_clipped")).activation
    assert isinstance(activation, torch.nn.Module)
    values = activation(torch.tensor([-2.0, 0.0, 0.25, 1.0, 3.0]))
    assert values.tolist() == pytest.approx([-0.02, 0.0, 0.25, 1.0, 1.02])


def test_an_image_of_28_pixels_is_refused() -> None:
    with pytest.raises(UserError, match=r"not 28 x 28; .*image_size=32"):
        factory.build(architecture(image_shape=[1, 28, 28]))


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(UserError, match=r"'lenet6' \(did you mean lenet5\?\); give one of lenet5, "):
        factory.build(architecture(name="lenet6"))
