"""The state of a training: all that its steps change, and so all that a checkpoint must hold."""

import copy
import time
from typing import NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from components.shared.core.document import Count, Document, Number, require
from components.shared.core.errors import CorruptDataError
from components.shared.models.document import Epoch, Epochs
from components.shared.parameters.training import Settings
from components.shared.training.early_stopping import History
from components.shared.training.optimizers import Optimizer
from components.shared.training.weight_averaging import WeightAverage


class CheckpointDocument(Document):
    """What a checkpoint holds besides tensors, as the text `state` in the metadata of its file."""

    FORMAT = "torch2kubeflow/checkpoint"
    REMEDY = ""  # an older checkpoint is used instead, or none

    key: str  # of the training, which determines the weights
    epochs: Epochs
    stopped: str  # why before the last epoch; empty if it was not
    step: Count  # steps taken in the current epoch, as are the three sums below
    total_loss: Number
    waited: Number
    stepped: Number
    seconds: Number  # since the training began
    epoch_seconds: Number

    @model_validator(mode="after")
    def _stops_after_an_epoch(self) -> Self:
        require("stopped", not self.stopped or bool(self.epochs and self.step == 0))
        return self


class StateDict(NamedTuple):
    """A state as a checkpoint stores it: tensors by name, and all else."""

    tensors: dict[str, Tensor]
    document: CheckpointDocument


class TrainingState:
    """The networks, the optimizer, the random generators, the history, and the position within the current epoch.

    The network of averaged weights is the one that is validated and saved.
    """

    def __init__(
        self, network: nn.Module, settings: Settings, *, seed: int, steps_per_epoch: int, started: float
    ) -> None:
        """Start at the first step, with the network on its device; `started` is a time of time.monotonic()."""
        self.network, self.device = network, next(network.parameters()).device
        self.max_epochs, self.steps_per_epoch = settings.epochs, steps_per_epoch
        self.average = WeightAverage(network, settings.ema_decay)
        self.best = copy.deepcopy(self.average.network)  # as averaged at the end of the best epoch
        self.optimizer = Optimizer(settings.optimizer, network, settings.learning_rate, settings.weight_decay)
        self.generator = torch.Generator().manual_seed(seed)  # draws the order of the images and the augmentation
        self.epoch_generator = torch.Generator()  # `generator` as it was when the epoch began
        self.history = History()
        self.step = 0  # steps taken in the current epoch, as are the three sums below
        self.total_loss = self.data_wait_seconds = self.step_seconds = 0.0
        self.started = self.epoch_started = started  # as if the training had never been interrupted

    @property
    def completed_steps(self) -> int:
        """Return the number of steps taken so far."""
        return len(self.history.epochs) * self.steps_per_epoch + self.step

    def begin_epoch(self) -> None:
        """Reset the clocks of the epoch, and remember how its order of the images is drawn."""
        self.epoch_started, self.data_wait_seconds, self.step_seconds = time.monotonic(), 0.0, 0.0
        self.epoch_generator.set_state(self.generator.get_state())

    def end_epoch(self, epoch: Epoch) -> None:
        """Append an epoch to the history, and remember its weights if it is the best."""
        self.history.epochs.append(epoch)
        self.step, self.total_loss = 0, 0.0
        if self.history.best is epoch:
            self.best.load_state_dict(self.average.network.state_dict())

    def state_dict(self, key: str) -> StateDict:
        """Return the state; names, shapes and dtypes of the tensors are the same at every step."""
        generators = {name: generator.get_state() for name, generator in self._generators().items()}
        now = time.monotonic()
        document = CheckpointDocument(
            key=key,
            epochs=self.history.epochs,
            stopped=self.history.stopped,
            step=self.step,
            total_loss=self.total_loss,
            waited=self.data_wait_seconds,
            stepped=self.step_seconds,
            seconds=now - self.started,
            epoch_seconds=now - self.epoch_started,
        )
        return StateDict({**self._weights(), **generators}, document)

    def load_state_dict(self, state: StateDict) -> None:
        """Restore a state. Raises CorruptDataError, with nothing changed, if it is not one of this training.

        The tensors keep their memory format: with another one, the next steps would round differently.
        """
        tensors, document = state
        if document.step >= self.steps_per_epoch or len(document.epochs) + (document.step > 0) > self.max_epochs:
            raise CorruptDataError("its state is not one of this training")
        generators = self._generators()
        try:
            for name, generator in generators.items():
                torch.Generator(generator.device).set_state(tensors[name])
        except RuntimeError as error:
            raise CorruptDataError(f"it holds no state of a random generator ({error})") from None
        for name, generator in generators.items():
            generator.set_state(tensors[name])
        for name, tensor in self._weights().items():
            tensor.copy_(tensors[name])
        self.history = History(list(document.epochs), document.stopped)
        self.step, self.total_loss = document.step, document.total_loss
        self.data_wait_seconds, self.step_seconds = document.waited, document.stepped
        self.started = time.monotonic() - document.seconds
        self.epoch_started = time.monotonic() - document.epoch_seconds

    def _weights(self) -> dict[str, Tensor]:
        networks = {"network": self.network, "averaged": self.average.network, "best": self.best}
        weights = {f"{of}.{name}": t for of, module in networks.items() for name, t in module.state_dict().items()}
        states = enumerate(self.optimizer.states)
        return weights | {f"optimizer.{index}.{name}": t for index, state in states for name, t in state.items()}

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {"own": self.generator, "epoch": self.epoch_generator, "torch": torch.default_generator}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
        return {f"generator.{name}": generator for name, generator in generators.items()}
