"""The epochs of a training: their figures, the best of them, and the reason to end before the last."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Stop = Callable[[Sequence["Epoch"]], str | None]


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch; the learning rate is that of its last step."""

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float  # of the steps, over all processes
    data_wait: float  # share of the steps' time in which no batch was ready
    memory_mib: float  # the peak of the first process so far
    peak_share: float  # of the GPUs' peak bfloat16 operations per second; 0 if the peak is not known


@dataclass
class History:
    """The epochs so far and, if the training ended before its last one, why."""

    epochs: list[Epoch] = field(default_factory=list)
    stopped: str = ""

    @property
    def best(self) -> Epoch:
        """Return the epoch of the highest validation accuracy or, among equals, of the lowest validation loss."""
        return max(self.epochs, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))

    def find_stop_reason(self, patience: int, stop: Stop | None) -> str:
        """Return why the training ends now, by `patience` or by the answer of `stop`; empty if it continues."""
        if 0 < patience == len(self.epochs) - self.best.epoch:
            return f"no better epoch since epoch {self.best.epoch}"
        return (stop and stop(self.epochs)) or ""

    def rows(self) -> list[dict[str, Any]]:
        """Return the epochs as JSON objects, from which `read_epochs` makes equal ones."""
        return [asdict(epoch) for epoch in self.epochs]


def read_epochs(rows: Sequence[object]) -> list[Epoch] | None:
    """Return the epochs that `History.rows` described; None if these are not such rows."""
    if not all(_is_epoch(row, number) for number, row in enumerate(rows, 1)):
        return None
    return [Epoch(**row) for row in rows]  # type: ignore[arg-type]


def _is_epoch(row: object, number: int) -> bool:
    types = {field.name: field.type for field in fields(Epoch)}
    return (
        isinstance(row, dict)
        and {name: type(value) for name, value in row.items()} == types
        and all(map(math.isfinite, row.values()))
        and row["epoch"] == number
    )
