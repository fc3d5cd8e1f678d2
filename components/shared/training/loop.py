"""The steps and epochs of a training, the same for every network and device.

A batch of uint8 images is normalized, augmented and mixed as a whole on the device. On the CPU, equal inputs, thread
count and CPU type give bit-identical weights, also after a resume; on GPUs only with `deterministic`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json
from components.shared.core.resources import inference_batch_size
from components.shared.core.torch_runtime import processor
from components.shared.data.dataset import Dataset
from components.shared.models import saved_model
from components.shared.models.catalogue import library_version
from components.shared.models.document import Epoch, HistoryDocument
from components.shared.models.normalize import normalize
from components.shared.parameters.training import Settings
from components.shared.training.augmentation import draw_maps, draw_mix, mixed, warp
from components.shared.training.batches import Batch, open_batches
from components.shared.training.checkpoints.state import StateDict, TrainingState
from components.shared.training.distributed.process_group import ProcessGroup
from components.shared.training.early_stopping import Stop
from components.shared.training.initialize import architecture, compiled, start_network
from components.shared.training.precision import autocast, is_bfloat16
from components.shared.training.schedules import SCHEDULES
from components.shared.training.streaming.plan import plan_streaming
from components.shared.training.temperature import FEWEST, fit_temperature
from components.shared.training.utilization import peak_memory_mib, peak_operations, training_operations

READS = ("components.shared.training.engine",)
(ENGINE,) = READS  # whose code determines the weights
VALIDATION_BATCH = 1000  # at most
PENDING_LOSSES = 32  # at most, on a GPU: reading a loss waits for its step


class Training:
    """A training from its first step to its last; all that the steps change is in `state`."""

    def __init__(
        self,
        settings: Settings,
        data: Dataset,
        group: ProcessGroup,
        seed: int,
        stop: Stop | None = None,
        stop_rule: str = "",
    ) -> None:
        """Load the data and build the network; `stop` is asked after each epoch for a reason to end the training."""
        started = time.monotonic()
        self.settings, self.data, self.group, self.stop, self.stop_rule = settings, data, group, stop, stop_rule
        self.steps_per_epoch = _count_steps(settings, data.counts["train"], group.size)
        batches = self.steps_per_epoch * settings.accumulate
        self.streaming = plan_streaming(
            data, settings, processes=group.size, on_machine=group.on_machine, batches=batches, seed=seed
        )
        self._log_order()
        self.train_batches = open_batches(data, "train", group.device, self.streaming, seed)
        self.val_batches = open_batches(data, "val", group.device, self.streaming, seed)
        self.mean, self.std = (
            torch.tensor(values, device=group.device) for values in (data.document.mean, data.document.std)
        )
        network, pretrained_sha256 = start_network(settings, data, group)
        parameters = settings.values()
        if not self.streaming:
            del parameters["shuffle_window"]  # it determines nothing, and older trainings do not know it
        self.provenance = _provenance(parameters, data, group, seed, pretrained_sha256)
        self.state = TrainingState(network, settings, seed=seed, steps_per_epoch=self.steps_per_epoch, started=started)
        smoothed = partial(functional.cross_entropy, label_smoothing=settings.label_smoothing)
        self.criterion: Callable[[Tensor, Tensor], Tensor] = getattr(network, "loss", smoothed)
        self.wrapped = group.wrap(network)
        self.forward = compiled(self.wrapped, group.device) if settings.torch_compile else self.wrapped
        self.peak = peak_operations(group.device) * group.size if is_bfloat16(settings, group.device) else 0.0
        self.operations = training_operations(network, data.image_shape) if self.peak else 0.0  # for one image
        self.pending_losses: list[Tensor] = []  # of the last steps
        self.last_loss = math.nan

    @property
    def key(self) -> str:
        """Return the digest of all that determines when the training ends, and with which weights."""
        library, kind = library_version(self.settings.network), processor(self.group.device)
        return sha256_json({**self.provenance, "library": library, "processor": kind, "stop_rule": self.stop_rule})

    @property
    def completed_steps(self) -> int:
        """Return the number of steps taken so far."""
        return self.state.completed_steps

    def state_dict(self) -> StateDict:
        """Return what a checkpoint holds."""
        self._read_losses()
        return self.state.state_dict(self.key)

    def load_state_dict(self, state: StateDict) -> None:
        """Restore a state. Raises CorruptDataError, with nothing changed, if it is not one of this training."""
        self.state.load_state_dict(state)

    def steps(self) -> Iterator[None]:
        """Train until the last epoch, until `patience` epochs in a row were no better than the best, or until `stop`.

        Yields after each step, and after the last step of an epoch when the epoch has been validated.
        """
        while len(self.state.history.epochs) < self.settings.epochs and not self.state.history.stopped:
            yield from self._epoch(len(self.state.history.epochs) + 1)
        history = self.state.history
        if history.stopped:
            self._log(f"stopped early: {history.stopped}")
        self._log(f"best epoch {history.best.epoch}: val accuracy {history.best.val_accuracy:.2%}")

    def save(self, folder: Path, checkpoints: Sequence[int]) -> None:
        """Write the best epoch's model; `checkpoints` are the steps of those that stay in the store.

        `model.json` must hold no time, nor anything else that differs between equal trainings.
        """
        history, described, temperature = self.state.history, self.data.document, self._temperature()
        preparation: dict[str, Any] = {"value_range": described.value_range} if described.value_range else {}
        if described.keep == "jpeg":
            preparation["crop"] = True
        figures = HistoryDocument(
            epochs=history.epochs,
            best_epoch=history.best.epoch,
            stopped=history.stopped,
            checkpoints=list(checkpoints),
            seconds={**described.seconds, "train": time.monotonic() - self.state.started},
        )
        saved_model.save(
            folder,
            self.state.best,
            figures,
            architecture=architecture(self.settings, self.data),
            classes=self.data.classes,
            image_shape=list(self.data.image_shape),
            mean=described.mean,
            std=described.std,
            **preparation,
            temperature=temperature,
            **self.provenance,
            checkpoint_key=self.key,
            best_epoch=history.best.epoch,
            val_accuracy=history.best.val_accuracy,
        )

    def _log(self, text: str) -> None:
        if self.group.is_first:
            log.info(text)

    def _log_order(self) -> None:
        asked = self.settings.shuffle_window
        if self.streaming:
            order = self.streaming.order
            self._log(f"the images are shuffled within a window of {order.window:,}, in {order.streams} streams")
        elif asked and not self.data.is_remote:
            self._log(f"shuffle_window={asked} has no effect: the data set is not read from a store")

    def _epoch(self, number: int) -> Iterator[None]:
        """Take the steps that are left of an epoch, and validate it; yields after each step."""
        state, size = self.state, self.settings.step_images
        label = f"epoch {number}/{self.settings.epochs}"
        batches = self.train_batches.each(self._choices(self._image_order(), state.step), number)
        progress = log.Progress(label, (self.steps_per_epoch - state.step) * size, "images")
        while state.step < self.steps_per_epoch:
            started = time.perf_counter()
            self._step(batches)
            is_last = state.step == self.steps_per_epoch
            if self.group.device.type == "cpu" or len(self.pending_losses) == PENDING_LOSSES or is_last:
                self._read_losses()
            state.step_seconds += time.perf_counter() - started
            if self.group.is_first:
                progress.advance(size, loss=self.last_loss)
            if not is_last:
                yield
        batches.close()  # the val split is read in the same room
        self._end_epoch(number, label)
        yield

    def _image_order(self) -> Tensor:
        """Return the epoch's order of the images (int64, N), also if a checkpoint lies within the epoch.

        It is drawn by the training's generator or, if the data are streamed, by the seed and the number of the epoch.
        """
        if self.state.step == 0:
            self.state.begin_epoch()
        if self.streaming:
            return torch.from_numpy(self.streaming.order.epoch(len(self.state.history.epochs) + 1))
        if self.state.step == 0:
            return torch.randperm(self.train_batches.count, generator=self.state.generator)
        return torch.randperm(self.train_batches.count, generator=self.state.epoch_generator.clone_state())

    def _choices(self, order: Tensor, first: int) -> Iterator[Tensor]:
        """Yield the images of each batch of this process, from step `first` of the epoch."""
        for step in range(first, self.steps_per_epoch):
            chosen = order[step * self.settings.step_images :][: self.settings.step_images]
            yield from map(self.group.shard, chosen.view(self.settings.accumulate, -1))

    def _learning_rate_share(self, step: int) -> float:
        """Return the share of the peak learning rate that the schedule gives to a step of the training, from 0."""
        return SCHEDULES[self.settings.schedule](step, self.settings.epochs * self.steps_per_epoch)

    def _step(self, batches: Iterator[Batch]) -> None:
        """Learn from the next `accumulate` batches."""
        s, state, total = self.settings, self.state, torch.zeros((), device=self.group.device)
        maps = draw_maps(
            s.step_images,
            state.generator,
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
            state.data_wait_seconds += time.perf_counter() - started
            with nullcontext() if part == s.accumulate - 1 else self.group.no_sync(self.wrapped):
                loss = self._loss(warp(normalize(images, self.mean, self.std), own), labels) / s.accumulate
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if s.clip_norm:
            nn.utils.clip_grad_norm_(state.optimizer.parameters, s.clip_norm)
        state.optimizer.step(self._learning_rate_share(state.completed_steps))
        state.average.update(state.completed_steps)
        self.pending_losses.append(total)
        state.step += 1

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of normalized images, mixed with each other by `mixup` or `cutmix`."""
        s, (height, width) = self.settings, images.shape[2:]
        mix = draw_mix(self.state.generator, mixup=s.mixup, cutmix=s.cutmix, height=height, width=width)
        with autocast(s, self.group.device):
            if mix is None:
                return self.criterion(self.forward(images), labels)
            logits = self.forward(mixed(images, mix))
            other_loss = self.criterion(logits, labels.roll(-1))
            return self.criterion(logits, labels) * mix.share + other_loss * (1 - mix.share)

    def _read_losses(self) -> None:
        """Add up the losses of the last steps. Raises UserError if one is not finite."""
        first, epoch = self.state.step - len(self.pending_losses) + 1, len(self.state.history.epochs) + 1
        for step, loss in enumerate(torch.stack(self.pending_losses).tolist() if self.pending_losses else [], first):
            self._check_finite(loss, f"the loss became {loss} in epoch {epoch}, step {step}")
            self.state.total_loss += loss
            self.last_loss = loss
        self.pending_losses.clear()

    def _check_finite(self, loss: float, message: str) -> None:
        if not math.isfinite(loss):
            message += f" at learning_rate={self.settings.learning_rate}"
            raise UserError(message, "give a lower learning_rate")

    def _end_epoch(self, number: int, label: str) -> None:
        """Validate the averaged network, and append the epoch to the history."""
        state, group = self.state, self.group
        group.broadcast_(*state.average.network.buffers())
        val_loss, val_accuracy = self._validate()
        self._check_finite(val_loss, f"the validation loss became {val_loss} after epoch {number}")
        rate = self.steps_per_epoch * self.settings.step_images / state.step_seconds
        total_loss = group.all_reduce_sum(state.total_loss)[0]
        epoch = Epoch(
            epoch=number,
            learning_rate=self.settings.learning_rate * self._learning_rate_share(state.completed_steps - 1),
            train_loss=total_loss / (self.steps_per_epoch * group.size),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.monotonic() - state.epoch_started,
            images_per_second=rate,
            data_wait=min(1.0, state.data_wait_seconds / state.step_seconds),
            memory_mib=peak_memory_mib(group.device),
            peak_share=rate * self.operations / self.peak if self.peak else 0.0,
        )
        self._log(f"{label}: {_describe(epoch)}")
        state.end_epoch(epoch)
        history = state.history
        history.stopped = group.broadcast_object(lambda: history.find_stop_reason(self.settings.patience, self.stop))

    @property
    def _val_batch_size(self) -> int:
        fits_in_training = min(VALIDATION_BATCH, self.settings.batch_size // self.group.size)
        return max(fits_in_training, inference_batch_size(VALIDATION_BATCH, self.data.image_shape))

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Return the loss (without label smoothing) and the accuracy of the averaged network on the val split."""
        loss, correct = 0.0, 0
        for images, labels in self.val_batches.in_order(self._val_batch_size, self.group.rank, self.group.size):
            with autocast(self.settings, self.group.device):
                logits = self.state.average.network(normalize(images, self.mean, self.std)).float()
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            correct += int((logits.argmax(dim=1) == labels).sum())
        loss, correct_sum = self.group.all_reduce_sum(loss, correct)
        return loss / self.val_batches.count, correct_sum / self.val_batches.count

    @torch.no_grad()
    def _temperature(self) -> float:
        """Return the temperature that calibrates the best epoch's network on the val split, or 1 if that is small."""
        if self.val_batches.count < FEWEST:
            self._log(f"not calibrated: the val split has fewer than {FEWEST} images")
            return 1.0
        logits, labels = [], []
        for images, truth in self.val_batches.in_order(self._val_batch_size, 0, 1):
            logits.append(self.state.best(normalize(images, self.mean, self.std)).float().cpu().numpy())
            labels.append(truth.cpu().numpy())
        temperature = fit_temperature(np.concatenate(logits), np.concatenate(labels))
        self._log(f"calibrated on the val split: temperature {temperature:g}")
        return temperature


def _count_steps(settings: Settings, images: int, processes: int) -> int:
    """Return the steps of an epoch; the images that are too few for another step are left out."""
    given = f"batch_size={settings.batch_size}"
    if settings.accumulate > 1:
        given += f" times accumulate={settings.accumulate}"
    if settings.step_images > images:
        raise UserError(f"{given} is more than the {images} images of the train split", "give a smaller batch_size")
    if settings.batch_size % processes:
        raise UserError(f"{given} cannot be split evenly over {processes} processes", f"give a multiple of {processes}")
    return images // settings.step_images


def _provenance(
    parameters: dict[str, Any], data: Dataset, group: ProcessGroup, seed: int, pretrained_sha256: str
) -> dict[str, Any]:
    """Return all that determines the weights."""
    return {
        "dataset_digest": data.digest,
        "code_version": code_digest(ENGINE),
        "parameters": parameters,
        "pretrained_sha256": pretrained_sha256,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "processes": group.size,
        "torch": torch.__version__,
        "device": group.device.type,
    }


def _describe(epoch: Epoch) -> str:
    peak = f", {epoch.peak_share:.1%} of the peak" if epoch.peak_share else ""
    return (
        f"val loss {epoch.val_loss:.4f}, val accuracy {epoch.val_accuracy:.2%} "
        f"({epoch.images_per_second:,.0f} images/s, {epoch.data_wait:.1%} waiting for data, "
        f"{epoch.memory_mib:,.0f} MiB{peak})"
    )
