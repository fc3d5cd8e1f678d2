"""The parameters that determine the weights of a training, besides dataset, code, seed and threads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from components.shared.parameters import check

READS = ("components.shared.training.engine",)
(ENGINE,) = READS  # whose code determines the weights
AUTO = "auto"


@dataclass(frozen=True)
class Settings:
    """The parameters of the pipeline that change the weights; each is described in pipeline.py."""

    network: str
    activation: str
    pooling: str
    bias: bool
    pretrained: str
    frozen_stages: int
    optimizer: str
    schedule: str
    learning_rate: float
    weight_decay: float
    batch_size: int  # 0 for auto, until the largest one that fits has been found
    accumulate: int
    clip_norm: float
    epochs: int
    label_smoothing: float
    rotation: float
    shift: float
    scale: float
    shear: float
    flip: bool
    mixup: float
    cutmix: float
    ema_decay: float
    patience: int
    precision: str
    torch_compile: bool
    deterministic: bool
    gpus: int  # of this machine

    @property
    def step_images(self) -> int:
        """Return the number of images in a step of the optimizer."""
        return self.batch_size * self.accumulate

    def parameters(self) -> dict[str, Any]:
        """Return the settings as parameters of the pipeline."""
        return {**asdict(self), "batch_size": str(self.batch_size or AUTO), "gpus": str(self.gpus)}


def read_settings(parameters: Mapping[str, Any]) -> Settings:
    """Return the settings among parameters of the pipeline. Raises UserError if one is out of its range."""
    given = {field.name: parameters[field.name] for field in fields(Settings)}
    check(**given)
    batch_size = 0 if given["batch_size"] == AUTO else int(given["batch_size"])
    return Settings(**{**given, "batch_size": batch_size, "gpus": int(given["gpus"])})
