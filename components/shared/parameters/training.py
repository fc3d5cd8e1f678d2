"""The parameters of a training, in the steps train, train-distributed and trial."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from components.shared.core.document import MAX_COUNT
from components.shared.core.errors import UserError
from components.shared.models import catalogue
from components.shared.parameters.common import Seed, StoreUri, Threads, is_s3_uri
from components.shared.parameters.recipe import Accepts, AsText, BelowOne, Recipe, fitting, parameter

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "leaky_clipped", "default"]
Pooling = Literal["max", "avg", "rms", "default"]
Optimizer = Literal["sgd", "adamw", "muon"]
LearningRateSchedule = Literal["one_cycle", "cosine"]
Precision = Literal["auto", "float32", "bfloat16"]


def _is_pretrained(value: str) -> bool:
    location, _, digest = value.partition("#")
    if digest and (not location or not re.fullmatch("sha256=[0-9a-f]{64}", digest)):
        return False
    return "://" not in location or is_s3_uri(location)


class Settings(Recipe):
    """What determines the weights of a training, besides dataset, code, seed and threads."""

    network: str = parameter(
        "lenet5", "lenet5, lenet5_1998, resnet18, mobilenet_v2 or another of docs/networks.md, or timm:NAME."
    )
    activation: Activation = parameter(
        "default",
        "default (the network's own), sigmoid, tanh, relu, leaky_relu or leaky_clipped (slope 0.01 off 0..1).",
    )
    pooling: Pooling = parameter(
        "default", "default (the network's own), max, avg or rms (root mean square) in place of max pooling."
    )
    bias: bool = parameter(True, "Whether convolutions and linear layers have a bias.")
    pretrained: Annotated[
        str,
        fitting(_is_pretrained),
        Accepts("s3://bucket/... or a path, followed by #sha256=... if its digest is known"),
    ] = parameter(
        "", "Weights to start from: a folder, a .safetensors file or s3://..., with #sha256=... to check them."
    )
    frozen_stages: Annotated[int, Field(ge=0, le=1000)] = parameter(
        0, "Number of stages of the network, from the first, whose weights are not trained."
    )
    optimizer: Optimizer = parameter("muon", "muon, sgd (with Nesterov momentum) or adamw.")
    schedule: LearningRateSchedule = parameter(
        "one_cycle", "one_cycle (a short warm-up of the learning rate, then a linear decay) or cosine."
    )
    learning_rate: Annotated[float, Field(gt=0), Accepts("a number above 0")] = parameter(
        0.02, "Peak of the learning rate."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = parameter(
        0.0, "Decoupled weight decay of the weight matrices; biases are not decayed."
    )
    batch_size: Annotated[int, AsText(zero="auto"), Field(le=999_999_999), Accepts("1 or more, or auto")] = parameter(
        256, "Images in a training batch, over all GPUs; auto takes the largest power of two that fits."
    )
    shuffle_window: Annotated[int, Field(ge=0, le=MAX_COUNT)] = parameter(
        0,
        "Images among which those of a data set beyond `handover_mib` are shuffled; 0 takes as many as 2 GiB of pixels "
        "or JPEGs hold. A window as large as the train split, like a smaller data set, is a full shuffle.",
    )
    accumulate: Annotated[int, Field(ge=1, le=100_000)] = parameter(
        1, "Number of batches whose gradients are accumulated for one step."
    )
    clip_norm: Annotated[float, Field(ge=0, le=1_000_000)] = parameter(
        0.0, "Norm to which larger gradients are scaled down; 0 does not clip."
    )
    epochs: Annotated[int, Field(ge=1, le=MAX_COUNT)] = parameter(3, "Passes over the training split.")
    label_smoothing: BelowOne = parameter(
        0.05, "Share of the target spread over all classes; lenet5_1998 has its own loss and ignores it."
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = parameter(
        0.0, "Random rotation of training images, in degrees to either side."
    )
    shift: Annotated[float, Field(ge=0, le=4096)] = parameter(1.0, "Random shift, in pixels to each side.")
    scale: BelowOne = parameter(0.0, "Random scaling, as a share to either side (0.1 is 90 % to 110 %).")
    shear: Annotated[float, Field(ge=0, le=2)] = parameter(
        0.0, "Random shear, as the tangent of the angle to either side."
    )
    flip: bool = parameter(False, "Whether half of the training images are mirrored.")
    mixup: Annotated[float, Field(ge=0, le=100)] = parameter(
        0.0, "Alpha of mixup, which blends each training image with another; 0 turns it off."
    )
    cutmix: Annotated[float, Field(ge=0, le=100)] = parameter(
        0.0, "Alpha of CutMix, which pastes a piece of another image into each; 0 turns it off."
    )
    ema_decay: BelowOne = parameter(
        0.99, "Decay per step of the averaged weights, which are evaluated and saved; 0 saves the raw ones."
    )
    patience: Annotated[int, Field(ge=0, le=MAX_COUNT)] = parameter(
        0, "Epochs without a better validation accuracy before training stops; 0 never stops early."
    )
    precision: Precision = parameter(
        "auto", "float32, bfloat16, or auto, which is bfloat16 on GPUs and float32 on CPUs."
    )
    torch_compile: bool = parameter(
        False, "Whether PyTorch compiles the network: a minute longer to start, faster on GPUs; needs gcc."
    )
    deterministic: bool = parameter(
        True, "Whether equal runs give bit-identical weights on GPUs too, which costs some speed there."
    )
    gpus: Annotated[int, AsText(), Field(le=99), Accepts("a whole number from 0 to 99")] = parameter(
        0, "GPUs for training; 0 trains on the CPU."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.mixup and self.cutmix:
            raise UserError(f"mixup={self.mixup} and cutmix={self.cutmix} exclude each other", "set one of them to 0")
        catalogue.check_name(self.network)
        return self

    def as_settings(self) -> "Settings":
        """Return the parameters that determine the weights, without those that a subclass adds."""
        return Settings.taken_from(self.values())

    @property
    def step_images(self) -> int:
        """Return the number of images in a step of the optimizer."""
        return self.batch_size * self.accumulate


class TrainingRecipe(Settings, Seed, Threads, StoreUri):
    """All that a step that trains needs to know."""

    checkpoint_seconds: Annotated[int, Field(ge=1, le=MAX_COUNT)] = parameter(
        30, "Seconds between two checkpoints of the training, which go to the store."
    )
    nodes: Annotated[int, Field(ge=1, le=1000)] = parameter(
        1, "Machines that train together, each with `gpus` GPUs; more than 1 need the graph `distributed`."
    )

    def run_arguments(self) -> dict[str, Any]:
        """Return the arguments of train_model that do not determine the weights."""
        return {name: getattr(self, name) for name in ("seed", "threads", "store", "checkpoint_seconds")}
