"""Step train: a prepared dataset -> a model folder with the weights of the best epoch.

The training split lies in memory as one uint8 tensor; a batch is gathered by index, normalised and augmented as a
whole. On the CPU, equal inputs, thread count and CPU type give bit-identical weights.
"""

import copy
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.shared import models
from components.shared.cpu import thread_count
from components.shared.dataset import Dataset, open_dataset
from components.shared.errors import UserError
from components.shared.files import new_folder
from components.shared.optimizers import Optimizer
from components.shared.parameters import check
from components.shared.progress import Progress, say
from components.shared.transforms import augment, normalise
from components.shared.version import code_version

STEP = "train"
WARM_UP = 0.05  # share of the steps in which the learning rate rises
VALIDATION_BATCH = 1000


def train(
    *,
    dataset: str | Path,
    activation: str,
    pooling: str,
    bias: bool,
    optimizer: str,
    learning_rate: float,
    weight_decay: float,
    batch_size: int,
    epochs: int,
    label_smoothing: float,
    rotation: float,
    shift: float,
    scale: float,
    shear: float,
    ema_decay: float,
    patience: int,
    seed: int,
    threads: int,
    store: str,
    checkpoint_seconds: int,
    model: str | Path,
) -> None:
    """Train LeNet-5 on the train split of `dataset` and write the weights of the best epoch to folder `model`.

    The best epoch has the highest validation accuracy or, among equals, the lowest validation loss. UserError where a
    parameter is out of range, the dataset does not fit the network or the batch, or the loss is no longer finite.
    """
    started = time.monotonic()
    settings = _Settings(
        activation=activation,
        pooling=pooling,
        bias=bias,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        batch_size=batch_size,
        epochs=epochs,
        label_smoothing=label_smoothing,
        rotation=rotation,
        shift=shift,
        scale=scale,
        shear=shear,
        ema_decay=ema_decay,
        patience=patience,
    )
    check(**asdict(settings), seed=seed, threads=threads)
    with new_folder(model) as folder:
        training = _Training(settings, open_dataset(dataset), _start_torch(seed, threads), seed)
        training.run()
        training.save(folder, time.monotonic() - started)


@dataclass(frozen=True)
class _Settings:
    """What determines the weights, besides dataset, code, seed and threads."""

    activation: str
    pooling: str
    bias: bool
    optimizer: str
    learning_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    label_smoothing: float
    rotation: float
    shift: float
    scale: float
    shear: float
    ema_decay: float
    patience: int


@dataclass(frozen=True)
class _Epoch:
    """One epoch's figures, as they stand in the history; the learning rate is that of its last step."""

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float


class _Training:
    """The state of a training: the raw and the averaged network, the optimizer, and what has been reached so far."""

    def __init__(self, settings: _Settings, data: Dataset, device: torch.device, seed: int) -> None:
        self.settings, self.data, self.device, self.seed = settings, data, device, seed
        self.images, self.labels = _load(data, "train", device)
        self.val_images, self.val_labels = _load(data, "val", device)
        self.batches = len(self.labels) // settings.batch_size  # the last, smaller batch is left out
        if not self.batches:
            raise UserError(
                f"batch_size={settings.batch_size} is more than the {len(self.labels)} images of the train split; "
                "give a smaller batch_size"
            )
        self.mean, self.std = (torch.tensor(data.document[name], device=device) for name in ("mean", "std"))
        self.architecture = {
            "name": "lenet5",
            "num_classes": len(data.classes),
            "image_shape": list(data.image_shape),
            "activation": settings.activation,
            "pooling": settings.pooling,
            "bias": settings.bias,
        }
        # Convolutions are faster in this order of memory, on CPUs and on GPUs.
        self.network: nn.Module = models.build(self.architecture).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimizer = Optimizer(settings.optimizer, self.network, settings.learning_rate, settings.weight_decay)
        self.steps = settings.epochs * self.batches
        self.generator = torch.Generator().manual_seed(seed)  # of the order and the augmentation
        self.epochs: list[_Epoch] = []

    def run(self) -> None:
        """Train until the last epoch, or until `patience` epochs in a row were no better than the best."""
        for number in range(1, self.settings.epochs + 1):
            self.epochs.append(self._epoch(number))
            self.best = max(self.epochs, key=lambda e: (e.val_accuracy, -e.val_loss))
            if self.best.epoch == number:
                self.best_network = copy.deepcopy(self.averaged)
            elif number - self.best.epoch == self.settings.patience:
                say(STEP, f"stopped early: no better epoch since epoch {self.best.epoch}")
                break
        say(STEP, f"kept epoch {self.best.epoch}: val accuracy {self.best.val_accuracy:.2%}")

    def save(self, folder: Path, seconds: float) -> None:
        """Write the best epoch's model; `seconds` is how long the step took. `model.json` must not tell the time."""
        document = {
            "architecture": self.architecture,
            "classes": self.data.classes,
            "image_shape": list(self.data.image_shape),
            "mean": self.data.document["mean"],
            "std": self.data.document["std"],
            "dataset_digest": self.data.digest,
            "code_version": code_version(),
            "parameters": asdict(self.settings),
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "best_epoch": self.best.epoch,
            "val_accuracy": self.best.val_accuracy,
        }
        history = {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best_epoch": self.best.epoch,
            "seconds": {**self.data.document["seconds"], STEP: seconds},
        }
        models.save(folder, self.best_network, document, history)

    def _epoch(self, number: int) -> _Epoch:
        started = time.monotonic()
        label, images = f"epoch {number}/{self.settings.epochs}", self.batches * self.settings.batch_size
        progress = Progress(STEP, label, images, "images")
        order = torch.randperm(len(self.labels), generator=self.generator)
        total = 0.0
        for step in range(self.batches):
            chosen = order[step * self.settings.batch_size :][: self.settings.batch_size]
            done = (number - 1) * self.batches + step
            share = one_cycle(done, self.steps)
            loss = self._step(chosen.to(self.device), share)
            self._average(done)
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss became {loss} in epoch {number}, step {step + 1} at learning_rate="
                    f"{self.settings.learning_rate}; give a lower learning_rate"
                )
            total += loss
            progress.advance(self.settings.batch_size, loss=loss)
        rate = images / (time.monotonic() - started)
        val_loss, val_accuracy = self._validate()
        say(STEP, f"{label}: val loss {val_loss:.4f}, val accuracy {val_accuracy:.2%}")
        return _Epoch(
            epoch=number,
            learning_rate=self.settings.learning_rate * share,
            train_loss=total / self.batches,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.monotonic() - started,
            images_per_second=rate,
        )

    def _step(self, chosen: Tensor, share: float) -> float:
        """Learn from the images at the indices `chosen` (int64, N) at a share of the learning rate; their mean loss."""
        s = self.settings
        images = normalise(self.images.index_select(0, chosen), self.mean, self.std)  # faster than [chosen]
        images = augment(images, self.generator, rotation=s.rotation, shift=s.shift, scale=s.scale, shear=s.shear)
        logits = self.network(images)
        loss = functional.cross_entropy(logits, self.labels[chosen], label_smoothing=s.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(share)
        return loss.item()

    @torch.no_grad()
    def _average(self, done: int) -> None:
        """Follow the raw weights, closely at first: TensorFlow's rule for forgetting the random initial weights."""
        decay = min(self.settings.ema_decay, (1 + done) / (10 + done))
        for average, raw in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            average.lerp_(raw, 1 - decay)

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Mean loss (without label smoothing) and accuracy of the averaged network on the val split."""
        loss, right = 0.0, 0
        for start in range(0, len(self.val_labels), VALIDATION_BATCH):
            images, labels = (t[start : start + VALIDATION_BATCH] for t in (self.val_images, self.val_labels))
            logits = self.averaged(normalise(images, self.mean, self.std))
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(dim=1) == labels).sum())
        return loss / len(self.val_labels), right / len(self.val_labels)


def one_cycle(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step (from 0): a short rise, then a fall to almost 0, both straight."""
    rise = max(1, round(WARM_UP * steps))
    return min((step + 1) / rise, (steps - step) / (steps - rise + 1))


def _start_torch(seed: int, threads: int) -> torch.device:
    """Set threads, seed and determinism, before the first operation; the device to train on."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what determinism asks of CUDA's matrix products
    torch.set_num_threads(thread_count(threads))
    # As torch.use_deterministic_algorithms(True), without its 4 seconds of importing the compiler.
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _load(data: Dataset, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
    images, labels = data.load(split)
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
