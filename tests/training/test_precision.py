"""The precision in which a network computes."""

import pytest
import torch

from components.shared.training.precision import autocast, is_bfloat16
from tests.trained_digits import settings


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("float32", "cpu", False),
        ("float32", "cuda", False),
        ("bfloat16", "cpu", True),
        ("bfloat16", "cuda", True),
    ],
)
def test_only_a_gpu_computes_in_bfloat16_by_itself(precision: str, device: str, expected: bool) -> None:
    assert is_bfloat16(settings(precision=precision), torch.device(device)) is expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_have_the_chosen_precision(precision: str) -> None:
    with autocast(settings(precision=precision), torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is getattr(torch, precision)
