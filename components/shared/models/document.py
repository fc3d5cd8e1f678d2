"""The documents in the folder of a trained network: `model.json` and `history.json`."""

from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from components.shared.core.document import (
    Count,
    Document,
    ImageShape,
    Items,
    JsonObject,
    Names,
    Number,
    Part,
    SealedDocument,
    Sha256,
    Share,
    Size,
    ValueRange,
    require,
)

REMEDY = "train the model again"


class Architecture(Part):
    """What `factory.build` builds a network from; the other members are arguments of the network."""

    model_config = ConfigDict(extra="allow")

    name: str
    num_classes: Size
    image_shape: ImageShape


Temperature = Annotated[float, Field(ge=0.2, le=5)]


class ModelDocument(SealedDocument):
    """`model.json`: all that determines the weights, and what their users must know. Equal runs have equal ones."""

    FORMAT = "torch2kubeflow/model"
    REMEDY = REMEDY

    architecture: Architecture
    classes: Names
    image_shape: ImageShape
    mean: list[Number]  # of each channel of the train split, of pixels scaled to 0..1
    std: list[Annotated[Number, Field(gt=0)]]
    value_range: ValueRange | None = None  # if there are pictures of numbers of more than 8 bits
    crop: bool = False  # whether an image is the centre crop of a picture, as keep=jpeg has it, or all of it
    temperature: Temperature = 1.0  # by which the logits are divided before the softmax
    dataset_digest: Sha256
    code_version: str
    parameters: JsonObject  # of the training
    pretrained_sha256: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]  # empty without `pretrained`
    seed: Count
    threads: Count
    processes: Size
    torch: str  # its version
    device: str
    checkpoint_key: Sha256
    best_epoch: Count
    val_accuracy: Share
    weights_sha256: Sha256
    checksum: str = ""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        channels = self.image_shape[0]
        require("mean", len(self.mean) == channels)
        require("std", len(self.std) == channels)
        require("architecture.num_classes", self.architecture.num_classes == len(self.classes))
        require("architecture.image_shape", self.architecture.image_shape == self.image_shape)
        return self


class Epoch(Part):
    """The figures of one epoch; the learning rate is that of its last step."""

    epoch: Size
    learning_rate: Number
    train_loss: Number
    val_loss: Number
    val_accuracy: Share
    seconds: Number
    images_per_second: Number  # of the steps, over all processes
    data_wait: Number  # share of the steps' time in which no batch was ready
    memory_mib: Number  # the peak of the first process so far
    peak_share: Number  # of the GPUs' peak bfloat16 operations per second; 0 if the peak is not known


def _are_numbered(epochs: list[Epoch]) -> list[Epoch]:
    if any(epoch.epoch != number for number, epoch in enumerate(epochs, 1)):
        raise ValueError("a number is missing")
    return epochs


Epochs = Annotated[Items[Epoch], AfterValidator(_are_numbered)]  # of a training, numbered from 1


class HistoryDocument(Document):
    """`history.json`: the epochs and the seconds of a training, which differ from run to run."""

    FORMAT = "torch2kubeflow/history"
    REMEDY = REMEDY

    epochs: Epochs
    best_epoch: Size
    stopped: str  # why before the last epoch; empty if it was not
    checkpoints: list[Count]  # the steps of those that stay in the store
    seconds: dict[str, Number]  # that each step of the pipeline took

    @model_validator(mode="after")
    def _training_is_complete(self) -> Self:
        require("best_epoch", self.best_epoch <= len(self.epochs))
        require("seconds.train", "train" in self.seconds)
        return self

    @property
    def best(self) -> Epoch:
        """Return the epoch whose weights were saved."""
        return self.epochs[self.best_epoch - 1]
