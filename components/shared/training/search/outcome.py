"""The outcomes of the trials of a sweep, as step trial leaves them in its folder: by number, one folder each."""

from dataclasses import dataclass
from pathlib import Path

from components.shared.core.errors import UserError, error_from_json
from components.shared.core.files import Document, read_json, write_json

FORMAT = "torch2kubeflow/trial"
FILE = "trial.json"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one setting; `best` is its best epoch, empty if there is no model."""

    number: int
    folder: Path
    settings: Document
    error: UserError | None
    history: Document
    best: Document

    @classmethod
    def read(cls, folder: Path) -> "Outcome":
        """Return the outcome of the trial in a folder. Raises UserError if it holds none."""
        document = read_json(folder / FILE, FORMAT)
        number = document["number"]
        if document["error"]:
            error = error_from_json(document["error"])
            return cls(number, folder, document["settings"], error, {"epochs": [], "stopped": ""}, {})
        history = read_json(folder / "history.json", "torch2kubeflow/history")
        best = history["epochs"][history["best_epoch"] - 1]
        return cls(number, folder, document["settings"], None, history, best)

    @property
    def state(self) -> str:
        """Return how it ended, in one word."""
        return "failed" if self.error else "stopped" if self.history["stopped"] else "done"

    @property
    def score(self) -> tuple[float, float]:
        """Return by what a model is the best: accuracy on the val split, among equals the lower loss."""
        return self.best["val_accuracy"], -self.best["val_loss"]

    @property
    def seconds(self) -> float:
        """Return the duration of the training."""
        return float(self.history["seconds"]["train"]) if self.best else 0.0

    @property
    def checkpoints(self) -> tuple[str, list[int]]:
        """Return the key and the steps of the checkpoints that it left in the store."""
        model = read_json(self.folder / "model.json", "torch2kubeflow/model")
        return model["checkpoint_key"], self.history["checkpoints"]

    @property
    def row(self) -> Document:
        """Return its entry in `comparison.json`."""
        return {
            "number": self.number,
            "settings": self.settings,
            "state": self.state,
            "reason": str(self.error) if self.error else self.history["stopped"],
            "epochs": len(self.history["epochs"]),
            "best_epoch": self.best.get("epoch"),
            "val_accuracy": self.best.get("val_accuracy"),
            "val_loss": self.best.get("val_loss"),
            "seconds": self.seconds,
        }


def write_outcome(folder: Path, number: int, settings: Document, error: UserError | None) -> None:
    """Complete the folder of a trial, in which its model is if it made one."""
    document = {"format": FORMAT, "number": number, "settings": settings, "error": error and error.to_json()}
    write_json(folder / FILE, document)


def read_outcomes(folder: Path) -> list[Outcome]:
    """Return the outcomes of the trials that one pod has done."""
    return [Outcome.read(path) for path in sorted(folder.iterdir())]


def keep_best_weights(folder: Path) -> None:
    """Delete the weights of all models of a pod but the best, which alone may be the best of the sweep."""
    trained = [outcome for outcome in read_outcomes(folder) if outcome.best]
    best = max(trained, key=lambda one: (one.score, -one.number), default=None)
    for outcome in trained:
        if outcome is not best:
            (outcome.folder / "model.safetensors").unlink(missing_ok=True)
