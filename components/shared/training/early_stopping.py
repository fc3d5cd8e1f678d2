"""The best epoch of a training, and the reason to end before the last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from components.shared.models.document import Epoch

Stop = Callable[[Sequence[Epoch]], str | None]


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
