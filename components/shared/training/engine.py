"""The training engine: one loop for every network, on the CPU, one GPU, and several GPUs of one or many nodes.

loop.py       the steps and epochs of a training, and all that a checkpoint must hold
batches.py    the images of a split by index, from memory, from the device, or from shards on the disk
launch.py     a training by one process for each GPU of this machine; worker.py is such a process
fitting.py    the largest batch that fits
cost.py       what training costs: memory, and the share of a GPU's peak
"""

import os
from dataclasses import replace
from pathlib import Path

import torch

from components.shared.core.errors import UserError
from components.shared.core.torch_runtime import prepare_process
from components.shared.data.dataset import Dataset
from components.shared.storage.client import open_store
from components.shared.training.auto_batch_size import largest_batch
from components.shared.training.checkpoints import run_resumably
from components.shared.training.distributed.process_group import ProcessGroup, init_process_group
from components.shared.training.history import Epoch, Stop
from components.shared.training.loop import Training
from components.shared.training.settings import Settings, read_settings

__all__ = ["Epoch", "Settings", "Stop", "read_settings", "train_model"]

OUT_OF_MEMORY = "can't allocate memory"  # PyTorch's RuntimeError on the CPU


def train_model(
    settings: Settings,
    data: Dataset,
    *,
    seed: int,
    threads: int,
    store: str,
    checkpoint_seconds: int,
    folder: Path,
    stop: Stop | None = None,
) -> None:
    """Train a network on the train split of `data` and write the weights of the best epoch into `folder`.

    By this process, or where torchrun has set its variables by it as one of several, of which the first writes. With a
    `store`, a checkpoint goes there every `checkpoint_seconds`, and the training goes on from the newest one of equal
    inputs. `stop` is asked after each epoch, and ends the training by a reason. UserError where the dataset does not
    fit the network or the batch, the loss is no longer finite, memory is too small, or the store cannot be read.
    """
    with init_process_group(settings.gpus) as group:
        _start_torch(threads, settings.deterministic)
        try:
            if settings.batch_size == 0:
                settings = replace(
                    settings, batch_size=group.broadcast_object(lambda: largest_batch(settings, data, group))
                )
            torch.manual_seed(seed)  # whether the size was looked for or not
            training = Training(settings, data, group, seed, stop)
            kept = _take_steps(training, group, store, checkpoint_seconds, folder)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and OUT_OF_MEMORY not in str(error):
                raise
            raise UserError(
                f"batch_size={settings.batch_size} needs more memory than there is on {group.device.type}; give a "
                "smaller batch_size, with accumulate for the same steps, or batch_size=auto; checkpoints are kept"
            ) from None
        if group.is_first:
            training.save(folder, kept)


def _take_steps(training: Training, group: ProcessGroup, store: str, seconds: float, folder: Path) -> list[int]:
    """Take all steps that are left; the steps of the checkpoints that the store keeps."""
    if store:
        return run_resumably(training, open_store(store, os.environ), training.key, seconds, folder, group)
    for _ in training.steps():
        pass
    return []


def _start_torch(threads: int, deterministic: bool) -> None:
    """Set threads and determinism, before the first operation."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what determinism asks of CUDA's matrix products
    prepare_process(threads)
    # As torch.use_deterministic_algorithms(True), without its 4 seconds of importing the compiler.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
