"""The steps and epochs of a training, the same for every network and device, and all that a checkpoint must hold.

A batch of uint8 images is normalised, augmented and mixed as a whole on the device. On the CPU, equal inputs, thread
count and CPU type give bit-identical weights, also from a checkpoint on; on GPUs with `deterministic` alone.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import CorruptDataError, UserError
from components.shared.core.files import Document, sha256_json
from components.shared.core.resources import inference_batch_size
from components.shared.data.dataset import Dataset
from components.shared.models import saved_model
from components.shared.models.normalize import normalize
from components.shared.training.augmentation import draw_maps, draw_mix, mixed, warp
from components.shared.training.batches import Batch, open_batches
from components.shared.training.distributed.process_group import ProcessGroup
from components.shared.training.initialize import architecture, autocast, compiled, is_bfloat16, start_network
from components.shared.training.optimizers import Optimizer
from components.shared.training.schedules import SCHEDULES
from components.shared.training.settings import ENGINE, Settings
from components.shared.training.utilization import peak_memory_mib, peak_operations, training_operations

VALIDATION_BATCH = 1000  # at most
UNREAD_LOSSES = 32  # on a GPU, which would have to be waited for
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

Stop = Callable[[Sequence["Epoch"]], str | None]


@dataclass(frozen=True)
class Epoch:
    """One epoch's figures, as they stand in the history; the learning rate is that of its last step."""

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float  # of the steps, over all processes
    data_wait: float  # share of the steps' time in which no batch was ready
    memory_mib: float  # the most that the first process has taken, so far
    peak_share: float  # of the GPUs' bfloat16 operations a second; 0 where the peak is not known


class Training:
    """The state of a training: the raw and the averaged network, the optimizer, and what has been reached so far."""

    def __init__(
        self, settings: Settings, data: Dataset, group: ProcessGroup, seed: int, stop: Stop | None = None
    ) -> None:
        """`stop` is asked after each epoch for a reason to end the training."""
        self.started = self.epoch_started = time.monotonic()  # as if it had never been interrupted
        self.settings, self.data, self.group, self.stop = settings, data, group, stop
        self.steps_of_epoch = _count_steps(settings, data.counts["train"], group.size)
        self.batches = open_batches(data, "train", group.device)
        self.val_batches = open_batches(data, "val", group.device)
        self.mean, self.std = (torch.tensor(data.document[name], device=group.device) for name in ("mean", "std"))
        self.architecture = architecture(settings, data)
        network, pretrained_sha256 = start_network(settings, data)
        # Convolutions are faster in this order of memory, on CPUs and on GPUs.
        self.network = network.to(device=group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.origin = {
            "dataset_digest": data.digest,
            "code_version": code_digest(ENGINE),
            "parameters": settings.parameters(),
            "pretrained_sha256": pretrained_sha256,
            "seed": seed,
            "threads": torch.get_num_threads(),
            "processes": group.size,
            "torch": torch.__version__,
            "device": group.device.type,
        }
        if settings.batch_size == group.size and any(isinstance(m, BATCH_NORMS) for m in self.network.modules()):
            raise UserError(f"{settings.network} normalises over the images of a batch; give batch_size=2 or more")
        self.averaged = copy.deepcopy(self.network).eval()
        self.best_network = copy.deepcopy(self.averaged)  # of the best epoch, once there is one
        pairs = list(zip(_tensors(self.averaged), _tensors(self.network), strict=True))
        self.followed = [pair for pair in pairs if pair[0].is_floating_point()]
        self.counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        smoothed = partial(functional.cross_entropy, label_smoothing=settings.label_smoothing)
        self.loss: Callable[[Tensor, Tensor], Tensor] = getattr(self.network, "loss", smoothed)
        self.optimizer = Optimizer(settings.optimizer, self.network, settings.learning_rate, settings.weight_decay)
        self.wrapped = group.wrap(self.network)
        self.forward: Callable[[Tensor], Tensor] = self.wrapped
        if settings.torch_compile:
            self.forward = compiled(self.wrapped, group.device)
        self.peak = peak_operations(group.device) * group.size if is_bfloat16(settings, group.device) else 0.0
        self.operations = training_operations(self.network, data.image_shape) if self.peak else 0.0  # for an image
        self.generator = torch.Generator().manual_seed(seed)  # of the order and the augmentation
        self.epoch_generator = torch.Generator()  # as the other one was when the epoch began
        self.epochs: list[Epoch] = []
        self.stopped = ""  # why, where it ended before its last epoch
        self.step, self.total_loss = 0, 0.0  # in the present epoch
        self.waited = self.stepped = 0.0  # seconds of the present epoch: for batches, and in all steps
        self.unread: list[Tensor] = []  # losses of the last steps
        self.last_loss = math.nan

    @property
    def key(self) -> str:
        """The digest of what determines the weights."""
        return sha256_json(self.origin)

    @property
    def done(self) -> int:
        """The steps taken so far."""
        return len(self.epochs) * self.steps_of_epoch + self.step

    @property
    def best(self) -> Epoch:
        """The best epoch so far: of the highest validation accuracy or, among equals, the lowest validation loss."""
        return max(self.epochs, key=lambda e: (e.val_accuracy, -e.val_loss))

    def steps(self) -> Iterator[None]:
        """Train until the last epoch, until `patience` epochs in a row were no better than the best, or until `stop`.

        Yields after each step; after the last one of an epoch it has been validated.
        """
        while len(self.epochs) < self.settings.epochs and not self.stopped:
            yield from self._epoch(len(self.epochs) + 1)
        if self.stopped:
            self._say(f"stopped early: {self.stopped}")
        self._say(f"kept epoch {self.best.epoch}: val accuracy {self.best.val_accuracy:.2%}")

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimizer state and states of the random generators, by name."""
        return {**self._weights(), **{name: generator.get_state() for name, generator in self._generators().items()}}

    def figures(self) -> Document:
        """What else changes from step to step."""
        self._read_losses()
        now = time.monotonic()
        return {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "stopped": self.stopped,
            "step": self.step,
            "total_loss": self.total_loss,
            "waited": self.waited,
            "stepped": self.stepped,
            "seconds": now - self.started,
            "epoch_seconds": now - self.epoch_started,
        }

    def restore(self, tensors: Mapping[str, Tensor], figures: Document) -> None:
        """Restore the state. Raises CorruptDataError, with nothing changed, if it is not one of this training.

        The tensors keep their memory format: with another one, the next steps would round in another way.
        """
        epochs = _read_figures(figures, self.settings.epochs, self.steps_of_epoch)
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
        self.epochs, self.stopped = epochs, figures["stopped"]
        self.step, self.total_loss = figures["step"], figures["total_loss"]
        self.waited, self.stepped = figures["waited"], figures["stepped"]
        self.started = time.monotonic() - figures["seconds"]
        self.epoch_started = time.monotonic() - figures["epoch_seconds"]

    def save(self, folder: Path, kept: Sequence[int]) -> None:
        """Write the best epoch's model; the store has kept checkpoints of the steps `kept`.

        `model.json` must not tell the time, nor what else differs between equal runs.
        """
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
            "stopped": self.stopped,
            "checkpoints": list(kept),
            "seconds": {**self.data.document["seconds"], "train": time.monotonic() - self.started},
        }
        saved_model.save(folder, self.best_network, document, history)

    def _say(self, text: str) -> None:
        if self.group.is_first:
            log.info(text)

    def _weights(self) -> dict[str, Tensor]:
        networks = {"network": self.network, "averaged": self.averaged, "best": self.best_network}
        weights = {f"{of}.{name}": t for of, module in networks.items() for name, t in module.state_dict().items()}
        states = enumerate(self.optimizer.states)
        return weights | {f"optimizer.{index}.{name}": t for index, state in states for name, t in state.items()}

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {"own": self.generator, "epoch": self.epoch_generator, "torch": torch.default_generator}
        if self.group.device.type == "cuda":
            generators["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
        return {f"generator.{name}": generator for name, generator in generators.items()}

    def _find_reason(self) -> str:
        """Why the training ends before its last epoch; empty where it does not."""
        if 0 < self.settings.patience == len(self.epochs) - self.best.epoch:
            return f"no better epoch since epoch {self.best.epoch}"
        return (self.stop and self.stop(self.epochs)) or ""

    def _epoch(self, number: int) -> Iterator[None]:
        """Take the steps of an epoch that are left, and validate it; yields after each step."""
        label, size = f"epoch {number}/{self.settings.epochs}", self.settings.step_images
        order = self._order()
        progress = log.Progress(label, (self.steps_of_epoch - self.step) * size, "images")
        batches = self.batches.each(self._choices(order, self.step))
        while self.step < self.steps_of_epoch:
            started = time.perf_counter()
            self._step(batches, self._share(self.done))
            self._average(self.done)
            self.step += 1
            is_last = self.step == self.steps_of_epoch
            if self.group.device.type == "cpu" or len(self.unread) == UNREAD_LOSSES or is_last:
                self._read_losses()
            self.stepped += time.perf_counter() - started
            if self.group.is_first:
                progress.advance(size, loss=self.last_loss)
            if not is_last:
                yield
        self._end_epoch(number, label)
        yield

    def _order(self) -> Tensor:
        """The epoch's order of the images (int64, N), drawn anew where the epoch has begun before a checkpoint."""
        if self.step == 0:
            self.epoch_started, self.waited, self.stepped = time.monotonic(), 0.0, 0.0
            self.epoch_generator.set_state(self.generator.get_state())
            return torch.randperm(self.batches.count, generator=self.generator)
        return torch.randperm(self.batches.count, generator=self.epoch_generator.clone_state())

    def _choices(self, order: Tensor, first: int) -> Iterator[Tensor]:
        """The images of each batch of this process, from a step on."""
        for step in range(first, self.steps_of_epoch):
            chosen = order[step * self.settings.step_images :][: self.settings.step_images]
            yield from map(self.group.shard, chosen.view(self.settings.accumulate, -1))

    def _share(self, done: int) -> float:
        return SCHEDULES[self.settings.schedule](done, self.settings.epochs * self.steps_of_epoch)

    def _step(self, batches: Iterator[Batch], share: float) -> None:
        """Learn from the next batches at a share of the learning rate."""
        s, total = self.settings, torch.zeros((), device=self.group.device)
        maps = draw_maps(
            s.step_images,
            self.generator,
            rotation=s.rotation,
            shift=s.shift,
            scale=s.scale,
            shear=s.shear,
            flip=s.flip,
        )
        for part in range(s.accumulate):
            own = None if maps is None else self.group.shard(maps.view(s.accumulate, s.batch_size, 2, 3)[part])
            started = time.perf_counter()
            images, labels = next(batches)
            self.waited += time.perf_counter() - started
            is_last = part == s.accumulate - 1
            with nullcontext() if is_last else self.group.no_sync(self.wrapped):
                loss = self._loss(warp(normalize(images, self.mean, self.std), own), labels) / s.accumulate
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if s.clip_norm:
            nn.utils.clip_grad_norm_(self.optimizer.parameters, s.clip_norm)
        self.optimizer.step(share)
        self.unread.append(total)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of normalised images, mixed with each other where that is asked for."""
        height, width = images.shape[2:]
        mix = draw_mix(
            self.generator, mixup=self.settings.mixup, cutmix=self.settings.cutmix, height=height, width=width
        )
        with autocast(self.settings, self.group.device):
            if mix is None:
                return self.loss(self.forward(images), labels)
            logits = self.forward(mixed(images, mix))
            return self.loss(logits, labels) * mix.share + self.loss(logits, labels.roll(-1)) * (1 - mix.share)

    def _read_losses(self) -> None:
        """Add up the losses of the last steps; UserError where one is not finite."""
        first = self.step - len(self.unread) + 1
        for step, loss in enumerate(torch.stack(self.unread).tolist() if self.unread else [], first):
            if not math.isfinite(loss):
                raise UserError(self._diverged(f"the loss became {loss} in epoch {len(self.epochs) + 1}, step {step}"))
            self.total_loss += loss
            self.last_loss = loss
        self.unread.clear()

    def _diverged(self, what: str) -> str:
        return f"{what} at learning_rate={self.settings.learning_rate}; give a lower learning_rate"

    def _end_epoch(self, number: int, label: str) -> None:
        images = self.steps_of_epoch * self.settings.step_images
        self.group.broadcast_(*self.averaged.buffers())
        val_loss, val_accuracy = self._validate()
        if not math.isfinite(val_loss):
            raise UserError(self._diverged(f"the validation loss became {val_loss} after epoch {number}"))
        rate = images / self.stepped
        epoch = Epoch(
            epoch=number,
            learning_rate=self.settings.learning_rate * self._share(self.done - 1),
            train_loss=self.group.all_reduce_sum(self.total_loss)[0] / (self.steps_of_epoch * self.group.size),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.monotonic() - self.epoch_started,
            images_per_second=rate,
            data_wait=min(1.0, self.waited / self.stepped),
            memory_mib=peak_memory_mib(self.group.device),
            peak_share=rate * self.operations / self.peak if self.peak else 0.0,
        )
        told = f", {epoch.peak_share:.1%} of the peak" if self.peak else ""
        self._say(
            f"{label}: val loss {val_loss:.4f}, val accuracy {val_accuracy:.2%} ({rate:,.0f} images/s, "
            f"{epoch.data_wait:.1%} waiting for data, {epoch.memory_mib:,.0f} MiB{told})"
        )
        self.epochs.append(epoch)
        self.step, self.total_loss = 0, 0.0
        if self.best is epoch:
            self.best_network.load_state_dict(self.averaged.state_dict())
        self.stopped = self.group.broadcast_object(self._find_reason)

    @torch.no_grad()
    def _average(self, done: int) -> None:
        """Follow the raw weights and statistics, closely at first: TensorFlow's rule for forgetting the random ones."""
        decay = min(self.settings.ema_decay, (1 + done) / (10 + done))
        averages, raws = zip(*self.followed, strict=True)
        torch._foreach_lerp_(averages, raws, 1 - decay)
        for average, raw in self.counters:
            average.copy_(raw)

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Mean loss (without label smoothing) and accuracy of the averaged network on the val split."""
        loss, right = 0.0, 0
        least = min(VALIDATION_BATCH, self.settings.batch_size // self.group.size)  # what learning has room for
        size = max(least, inference_batch_size(VALIDATION_BATCH, self.data.image_shape))
        for images, labels in self.val_batches.in_order(size, self.group.rank, self.group.size):
            with autocast(self.settings, self.group.device):
                logits = self.averaged(normalize(images, self.mean, self.std)).float()
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(dim=1) == labels).sum())
        loss, found = self.group.all_reduce_sum(loss, right)
        return loss / self.val_batches.count, found / self.val_batches.count


def _tensors(network: nn.Module) -> list[Tensor]:
    """Weights, and statistics such as those of batch normalisation."""
    return [*network.parameters(), *network.buffers()]


def _count_steps(settings: Settings, images: int, processes: int) -> int:
    """The steps of an epoch; what is left over for less than a step is left out."""
    given = f"batch_size={settings.batch_size}"
    if settings.accumulate > 1:
        given += f" times accumulate={settings.accumulate}"
    if settings.step_images > images:
        raise UserError(f"{given} is more than the {images} images of the train split; give a smaller batch_size")
    if settings.batch_size % processes:
        raise UserError(f"{given} cannot be shared by {processes} processes evenly; give a multiple of {processes}")
    return images // settings.step_images


def _read_figures(figures: Document, epochs: int, steps: int) -> list[Epoch]:
    """The epochs that a checkpoint tells; CorruptDataError where its figures are none of this training's."""
    match figures:
        case {
            "epochs": list(rows),
            "stopped": str(),
            "step": int(step),
            "total_loss": float(total),
            "waited": float(waited),
            "stepped": float(stepped),
            "seconds": float(seconds),
            "epoch_seconds": float(epoch_seconds),
        } if (
            0 <= step < steps
            and len(rows) + (step > 0) <= epochs
            and all(map(math.isfinite, (total, waited, stepped, seconds, epoch_seconds)))
            and all(_is_epoch(row, number) for number, row in enumerate(rows, 1))
        ):
            return [Epoch(**row) for row in rows]
    raise CorruptDataError("its state is not one of this training")


def _is_epoch(row: object, number: int) -> bool:
    types = {field.name: field.type for field in fields(Epoch)}
    return (
        isinstance(row, dict)
        and {name: type(value) for name, value in row.items()} == types
        and all(map(math.isfinite, row.values()))
        and row["epoch"] == number
    )
