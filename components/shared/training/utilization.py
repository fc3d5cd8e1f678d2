"""Measure the memory of a training, and the share of a GPU's peak that it reaches (model FLOPs utilization)."""

import copy
import re
import resource
from collections.abc import Sequence

import torch
from torch import nn

# Peak dense bfloat16 operations per second, from NVIDIA's data sheets, by words in the device's name.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}
BACKWARD = 2  # times the operations of the forward pass


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory of this process so far, in MiB: on its GPU, or else in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def peak_operations(device: torch.device) -> float:
    """Return the peak bfloat16 operations per second of the device; 0 if they are not known."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak for words, peak in PEAKS.items() if re.search(rf"\b{words}\b", name)), 0.0)


def training_operations(network: nn.Module, image_shape: Sequence[int]) -> float:
    """Return the operations of learning from one image; a multiplication and an addition are two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network).float().cpu().eval()(torch.zeros(1, *image_shape))
    return float((1 + BACKWARD) * counter.get_total_flops())
