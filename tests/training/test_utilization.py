"""What a training costs: pytest tests/training/test_utilization.py"""

import pytest
import torch

from components.shared.training import utilization


@pytest.mark.slow
def test_training_takes_three_times_the_forward_operations() -> None:
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 10, bias=False))
    assert utilization.training_operations(layer, (3, 4, 4)) == 3 * 2 * 48 * 10


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40", 181),
        ("Tesla T4", 0),
    ],
)
def test_the_peak_of_a_gpu_is_found_by_whole_words(name: str, peak: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert utilization.peak_operations(torch.device("cuda")) == peak * 1e12
