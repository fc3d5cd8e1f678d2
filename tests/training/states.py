"""States of trainings whose tensors are all that matters."""

from components.shared.training.checkpoints.state import CheckpointDocument


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
