"""States of trainings: documents of which the tensors are all that matters, and what a training comes to."""

from itertools import islice
from typing import Any

import torch

from components.shared.data.dataset import Dataset
from components.shared.training.checkpoints.state import CheckpointDocument, StateDict
from components.shared.training.distributed.process_group import SINGLE
from components.shared.training.loop import Training
from tests.trained_digits import settings


def state_of(key: str, step: int) -> CheckpointDocument:
    """The document of a checkpoint of a training's first epoch."""
    return CheckpointDocument(
        key=key,
        epochs=[],
        stopped="",
        step=step,
        total_loss=0.0,
        waited=0.0,
        stepped=0.0,
        seconds=0.0,
        epoch_seconds=0.0,
    )


def state_after(
    data: Dataset, steps: int, parameters: dict[str, Any], begin: StateDict | None = None, seed: int = 0
) -> StateDict:
    """Return the state of a training after so many steps, from the start or from another state."""
    torch.manual_seed(seed)
    training = Training(settings(**parameters), data, SINGLE, seed=seed)
    if begin:
        training.load_state_dict(begin)
    for _ in islice(training.steps(), steps):
        pass
    state = training.state_dict()
    return StateDict({name: tensor.clone() for name, tensor in state.tensors.items()}, state.document)
