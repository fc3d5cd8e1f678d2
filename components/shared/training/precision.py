"""The precision in which a network computes: float32, or bfloat16 beside float32 weights."""

import torch

from components.shared.parameters.training import Settings


def is_bfloat16(settings: Settings, device: torch.device) -> bool:
    """Return whether the network computes in bfloat16; its weights are float32 in any case."""
    return {"auto": device.type == "cuda", "bfloat16": True, "float32": False}[settings.precision]


def autocast(settings: Settings, device: torch.device) -> torch.autocast:
    """Return a context in which the network computes in the precision of the settings."""
    return torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16(settings, device))
