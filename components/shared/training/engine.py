"""The training engine: one loop for every network, on the CPU, one GPU, and several GPUs of one or many nodes.

loop.py takes the steps, state.py is what a checkpoint holds, and checkpoints.py writes and restores it.
"""

import os
from pathlib import Path

import torch

from components.shared.core.errors import UserError
from components.shared.core.torch_runtime import prepare_process
from components.shared.data.dataset import Dataset
from components.shared.parameters.training import Settings
from components.shared.storage.client import open_store
from components.shared.training.auto_batch_size import check_batch, largest_batch
from components.shared.training.checkpoints.manager import run_resumably
from components.shared.training.distributed.process_group import ProcessGroup, init_process_group
from components.shared.training.early_stopping import Stop
from components.shared.training.loop import Training

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
    stop_rule: str = "",
) -> None:
    """Train a network on the train split of `data` and write the weights of the best epoch into `folder`.

    If torchrun has set its variables, this process is one of several, of which the first writes. With a `store`, a
    checkpoint is written there every `checkpoint_seconds`, and the training resumes from the newest one of equal
    inputs. `stop` is asked after each epoch, and ends the training by returning a reason; `stop_rule` names the rule,
    so that no training under another one resumes from what this one ended. Raises UserError if the dataset does
    not fit the network or the batch, the loss is not finite, memory is too small, or the store cannot be read.
    """
    with init_process_group(settings.gpus) as group:
        _start_torch(threads, settings.deterministic)
        try:
            if settings.batch_size == 0:
                size = group.broadcast_object(lambda: largest_batch(settings, data, group))
                settings = settings.model_copy(update={"batch_size": size})
            else:
                check_batch(settings, data, group)
            torch.manual_seed(seed)  # after the search for a batch size, which draws numbers
            training = Training(settings, data, group, seed, stop, stop_rule)
            checkpoints = _take_steps(training, group, store, checkpoint_seconds, folder)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and OUT_OF_MEMORY not in str(error):
                raise
            raise UserError(
                f"batch_size={settings.batch_size} needs more memory than the {group.device.type} has",
                "give a smaller batch_size, with accumulate for the same steps, or batch_size=auto",
            ) from None
        if group.is_first:
            training.save(folder, checkpoints)


def _take_steps(training: Training, group: ProcessGroup, store: str, seconds: float, folder: Path) -> list[int]:
    """Take all steps that are left, and return the steps of the checkpoints that stay in the store."""
    if store:
        return run_resumably(training, open_store(store, os.environ), seconds, folder, group)
    for _ in training.steps():
        pass
    return []


def _start_torch(threads: int, deterministic: bool) -> None:
    """Set threads and determinism; call it before the first operation."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA's matrix products are deterministic only with it
    prepare_process(threads)
    # As torch.use_deterministic_algorithms(True), which imports the compiler for 4 seconds.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
