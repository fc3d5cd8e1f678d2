"""Step train: a prepared dataset -> a model folder with the weights of the best epoch; with a store it outlives kills.

The training split lies in memory as one uint8 tensor; a batch is gathered by index, normalised and augmented as a
whole. On the CPU, equal inputs, thread count and CPU type give bit-identical weights, also from a checkpoint on.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.shared import models
from components.shared.checkpoints import run_resumably
from components.shared.cpu import thread_count
from components.shared.dataset import Dataset, open_dataset
from components.shared.errors import Damaged, UserError
from components.shared.files import Document, new_folder, sha256_json
from components.shared.optimizers import Optimizer
from components.shared.parameters import check
from components.shared.progress import Progress, say
from components.shared.storage import open_store
from components.shared.transforms import augment, normalise
from components.shared.version import code_version

STEP = "train"
WARM_UP = 0.05  # share of the steps in which the learning rate rises
VALIDATION_BATCH = 1000
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def train(
    *,
    dataset: str | Path,
    network: str,
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
    """Train a network on the train split of `dataset` and write the weights of the best epoch to folder `model`.

    The best epoch has the highest validation accuracy or, among equals, the lowest validation loss. With a `store`, a
    checkpoint goes there every `checkpoint_seconds`, and the training goes on from the newest one of equal inputs; what
    is written is the same, but for the seconds. UserError where a parameter is out of range, the dataset does not fit
    the network or the batch, the loss is no longer finite, or the store cannot be read at the start.
    """
    settings = _Settings(
        network=network,
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
    check(**asdict(settings), seed=seed, threads=threads, store=store, checkpoint_seconds=checkpoint_seconds)
    with new_folder(model) as folder:
        training = _Training(settings, open_dataset(dataset), _start_torch(seed, threads), seed)
        if store:
            run_resumably(training, open_store(store, os.environ), training.key, checkpoint_seconds, folder)
        else:
            for _ in training.steps():
                pass
        training.save(folder)


@dataclass(frozen=True)
class _Settings:
    """What determines the weights, besides dataset, code, seed and threads."""

    network: str
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
        self.started = self.epoch_started = time.monotonic()  # as if it had never been interrupted
        self.settings, self.data, self.device = settings, data, device
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
            "name": settings.network,
            "num_classes": len(data.classes),
            "image_shape": list(data.image_shape),
            "activation": settings.activation,
            "pooling": settings.pooling,
            "bias": settings.bias,
        }
        self.origin = {
            "dataset_digest": data.digest,
            "code_version": code_version(),
            "parameters": asdict(settings),
            "seed": seed,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": device.type,
        }
        # Convolutions are faster in this order of memory, on CPUs and on GPUs.
        self.network: nn.Module = models.build(self.architecture).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.batch_size == 1 and any(isinstance(module, BATCH_NORMS) for module in self.network.modules()):
            raise UserError(f"{settings.network} normalises over the images of a batch; give batch_size=2 or more")
        self.averaged = copy.deepcopy(self.network).eval()
        self.best_network = copy.deepcopy(self.averaged)  # of the best epoch, once there is one
        self.followed = list(zip(_tensors(self.averaged), _tensors(self.network), strict=True))
        smoothed = partial(functional.cross_entropy, label_smoothing=settings.label_smoothing)
        self.loss: Callable[[Tensor, Tensor], Tensor] = getattr(self.network, "loss", smoothed)
        self.optimizer = Optimizer(settings.optimizer, self.network, settings.learning_rate, settings.weight_decay)
        self.generator = torch.Generator().manual_seed(seed)  # of the order and the augmentation
        self.epoch_generator = torch.Generator()  # as the other one was when the epoch began
        self.epochs: list[_Epoch] = []
        self.step, self.total_loss = 0, 0.0  # in the present epoch

    @property
    def key(self) -> str:
        """The digest of what determines the weights."""
        return sha256_json(self.origin)

    @property
    def done(self) -> int:
        """The steps taken so far."""
        return len(self.epochs) * self.batches + self.step

    @property
    def best(self) -> _Epoch:
        """The best epoch so far."""
        return max(self.epochs, key=lambda e: (e.val_accuracy, -e.val_loss))

    def steps(self) -> Iterator[None]:
        """Train until the last epoch, or until `patience` epochs in a row were no better than the best.

        Yields after each step; after the last one of an epoch it has been validated.
        """
        while len(self.epochs) < self.settings.epochs and not self._is_out_of_patience():
            yield from self._epoch(len(self.epochs) + 1)
        if self._is_out_of_patience():
            say(STEP, f"stopped early: no better epoch since epoch {self.best.epoch}")
        say(STEP, f"kept epoch {self.best.epoch}: val accuracy {self.best.val_accuracy:.2%}")

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimizer state and states of the random generators, by name."""
        return {**self._weights(), **{name: generator.get_state() for name, generator in self._generators().items()}}

    def figures(self) -> Document:
        """What else changes from step to step."""
        now = time.monotonic()
        return {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "step": self.step,
            "total_loss": self.total_loss,
            "seconds": now - self.started,
            "epoch_seconds": now - self.epoch_started,
        }

    def restore(self, tensors: Mapping[str, Tensor], figures: Document) -> None:
        """Go back to what `tensors` and `figures` told; Damaged, with nothing changed, where they cannot have done so.

        The tensors keep their memory format: with another one, the next steps would round in another way.
        """
        epochs = _read_figures(figures, self.settings.epochs, self.batches)
        generators = self._generators()
        try:
            for name, generator in generators.items():
                torch.Generator(generator.device).set_state(tensors[name])
        except RuntimeError as error:
            raise Damaged(f"it holds no state of a random generator ({error})") from None
        for name, generator in generators.items():
            generator.set_state(tensors[name])
        for name, tensor in self._weights().items():
            tensor.copy_(tensors[name])
        self.epochs, self.step, self.total_loss = epochs, figures["step"], figures["total_loss"]
        self.started = time.monotonic() - figures["seconds"]
        self.epoch_started = time.monotonic() - figures["epoch_seconds"]

    def save(self, folder: Path) -> None:
        """Write the best epoch's model. `model.json` must not tell the time."""
        document = {
            "architecture": self.architecture,
            "classes": self.data.classes,
            "image_shape": list(self.data.image_shape),
            "mean": self.data.document["mean"],
            "std": self.data.document["std"],
            **self.origin,
            "checkpoint_key": self.key,
            "best_epoch": self.best.epoch,
            "val_accuracy": self.best.val_accuracy,
        }
        history = {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best_epoch": self.best.epoch,
            "seconds": {**self.data.document["seconds"], STEP: time.monotonic() - self.started},
        }
        models.save(folder, self.best_network, document, history)

    def _weights(self) -> dict[str, Tensor]:
        networks = {"network": self.network, "averaged": self.averaged, "best": self.best_network}
        weights = {f"{of}.{name}": t for of, module in networks.items() for name, t in module.state_dict().items()}
        states = enumerate(self.optimizer.states)
        return weights | {f"optimizer.{index}.{name}": t for index, state in states for name, t in state.items()}

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {"own": self.generator, "epoch": self.epoch_generator, "torch": torch.default_generator}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
        return {f"generator.{name}": generator for name, generator in generators.items()}

    def _is_out_of_patience(self) -> bool:
        patience = self.settings.patience
        return 0 < patience == len(self.epochs) - (self.best.epoch if self.epochs else 0)

    def _epoch(self, number: int) -> Iterator[None]:
        """Take the steps of an epoch that are left, and validate it; yields after each step."""
        label, batch_size = f"epoch {number}/{self.settings.epochs}", self.settings.batch_size
        order = self._order()
        progress = Progress(STEP, label, (self.batches - self.step) * batch_size, "images")
        while self.step < self.batches:
            chosen = order[self.step * batch_size :][:batch_size]
            loss = self._step(chosen.to(self.device), self._share(self.done))
            self._average(self.done)
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss became {loss} in epoch {number}, step {self.step + 1} at learning_rate="
                    f"{self.settings.learning_rate}; give a lower learning_rate"
                )
            self.step, self.total_loss = self.step + 1, self.total_loss + loss
            progress.advance(batch_size, loss=loss)
            if self.step < self.batches:
                yield
        self._end_epoch(number, label)
        yield

    def _order(self) -> Tensor:
        """The epoch's order of the images (int64, N), drawn anew where the epoch has begun before a checkpoint."""
        if self.step == 0:
            self.epoch_started = time.monotonic()
            self.epoch_generator.set_state(self.generator.get_state())
            return torch.randperm(len(self.labels), generator=self.generator)
        return torch.randperm(len(self.labels), generator=self.epoch_generator.clone_state())

    def _share(self, done: int) -> float:
        return one_cycle(done, self.settings.epochs * self.batches)

    def _end_epoch(self, number: int, label: str) -> None:
        rate = self.batches * self.settings.batch_size / (time.monotonic() - self.epoch_started)
        val_loss, val_accuracy = self._validate()
        say(STEP, f"{label}: val loss {val_loss:.4f}, val accuracy {val_accuracy:.2%}")
        epoch = _Epoch(
            epoch=number,
            learning_rate=self.settings.learning_rate * self._share(self.done - 1),
            train_loss=self.total_loss / self.batches,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.monotonic() - self.epoch_started,
            images_per_second=rate,
        )
        self.epochs.append(epoch)
        self.step, self.total_loss = 0, 0.0
        if self.best is epoch:
            self.best_network.load_state_dict(self.averaged.state_dict())

    def _step(self, chosen: Tensor, share: float) -> float:
        """Learn from the images at the indices `chosen` (int64, N) at a share of the learning rate; their mean loss."""
        s = self.settings
        images = normalise(self.images.index_select(0, chosen), self.mean, self.std)  # faster than [chosen]
        images = augment(images, self.generator, rotation=s.rotation, shift=s.shift, scale=s.scale, shear=s.shear)
        logits = self.network(images)
        loss = self.loss(logits, self.labels[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(share)
        return loss.item()

    @torch.no_grad()
    def _average(self, done: int) -> None:
        """Follow the raw weights and statistics, closely at first: TensorFlow's rule for forgetting the random ones."""
        decay = min(self.settings.ema_decay, (1 + done) / (10 + done))
        for average, raw in self.followed:
            if raw.is_floating_point():
                average.lerp_(raw, 1 - decay)
            else:
                average.copy_(raw)  # a counter

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


def _tensors(network: nn.Module) -> list[Tensor]:
    """Weights, and statistics such as those of batch normalisation."""
    return [*network.parameters(), *network.buffers()]


def _read_figures(figures: Document, epochs: int, batches: int) -> list[_Epoch]:
    """The epochs that a checkpoint tells; Damaged where its figures are none of this training's."""
    match figures:
        case {
            "epochs": list(rows),
            "step": int(step),
            "total_loss": float(total),
            "seconds": float(seconds),
            "epoch_seconds": float(epoch_seconds),
        } if (
            0 <= step < batches
            and len(rows) + (step > 0) <= epochs
            and all(map(math.isfinite, (total, seconds, epoch_seconds)))
            and all(_is_epoch(row, number) for number, row in enumerate(rows, 1))
        ):
            return [_Epoch(**row) for row in rows]
    raise Damaged("its state is not one of this training")


def _is_epoch(row: object, number: int) -> bool:
    types = {field.name: field.type for field in fields(_Epoch)}
    return (
        isinstance(row, dict)
        and {name: type(value) for name, value in row.items()} == types
        and all(map(math.isfinite, row.values()))
        and row["epoch"] == number
    )


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
