"""The outcomes of the trials of a sweep, as step trial leaves them in its folder: by number, one folder each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.shared.core.document import Count, Document, Items, JsonObject, Number, Part, Share, Size
from components.shared.core.errors import UserError, error_from_json
from components.shared.models.document import HistoryDocument, ModelDocument

FILE = "trial.json"


class TrialError(Part):
    """Why there is no model, as `UserError.to_json` describes it."""

    error: Literal["UserError", "TransientError", "CorruptDataError"]
    message: str
    remedy: str


class TrialDocument(Document):
    """`trial.json`: one setting, and the error of a training that failed because of it."""

    FORMAT = "torch2kubeflow/trial"
    REMEDY = "do the trial again"

    number: Size
    settings: JsonObject
    error: TrialError | None


class TrialFigures(Part):
    """A trial in `comparison.json`; what only a model has is null without one."""

    number: Size
    settings: JsonObject
    state: Literal["failed", "stopped", "done"]
    reason: str  # why it failed or stopped
    epochs: Count
    best_epoch: Size | None
    val_accuracy: Share | None
    val_loss: Number | None
    seconds: Number


class ComparisonDocument(Document):
    """`comparison.json`: the figures of all trials, and the number of the best one."""

    FORMAT = "torch2kubeflow/comparison"
    REMEDY = "run the sweep again"

    best: Size
    trials: Items[TrialFigures]


@dataclass(frozen=True)
class Failed:
    """A trial whose setting made the training fail."""

    number: int
    settings: JsonObject
    error: UserError

    @property
    def figures(self) -> TrialFigures:
        """Return its entry in `comparison.json`."""
        return TrialFigures(
            number=self.number,
            settings=self.settings,
            state="failed",
            reason=str(self.error),
            epochs=0,
            best_epoch=None,
            val_accuracy=None,
            val_loss=None,
            seconds=0.0,
        )


@dataclass(frozen=True)
class Trained:
    """A trial with a model in its folder."""

    number: int
    settings: JsonObject
    folder: Path
    history: HistoryDocument

    @property
    def score(self) -> tuple[float, float]:
        """Return by what a model is the best: accuracy on the val split, among equals the lower loss."""
        return self.history.best.val_accuracy, -self.history.best.val_loss

    @property
    def checkpoints(self) -> tuple[str, list[int]]:
        """Return the key and the steps of the checkpoints that it left in the store."""
        return ModelDocument.read(self.folder / "model.json").checkpoint_key, self.history.checkpoints

    @property
    def figures(self) -> TrialFigures:
        """Return its entry in `comparison.json`."""
        best = self.history.best
        return TrialFigures(
            number=self.number,
            settings=self.settings,
            state="stopped" if self.history.stopped else "done",
            reason=self.history.stopped,
            epochs=len(self.history.epochs),
            best_epoch=best.epoch,
            val_accuracy=best.val_accuracy,
            val_loss=best.val_loss,
            seconds=self.history.seconds["train"],
        )


Outcome = Failed | Trained


def write_outcome(folder: Path, number: int, settings: JsonObject, error: UserError | None) -> None:
    """Complete the folder of a trial, in which its model is if it made one."""
    found = TrialError.model_validate(error.to_json()) if error else None
    TrialDocument(number=number, settings=settings, error=found).write(folder / FILE)


def read_outcomes(folder: Path) -> list[Outcome]:
    """Return the outcomes of the trials that one pod has done. Raises UserError if a document is missing or invalid."""
    return [_read(path) for path in sorted(folder.iterdir())]


def _read(folder: Path) -> Outcome:
    document = TrialDocument.read(folder / FILE)
    if document.error:
        return Failed(document.number, document.settings, error_from_json(document.error.model_dump()))
    return Trained(document.number, document.settings, folder, HistoryDocument.read(folder / "history.json"))


def keep_best_weights(folder: Path) -> None:
    """Delete the weights of all models of a pod but the best, which alone may be the best of the sweep."""
    trained = [outcome for outcome in read_outcomes(folder) if isinstance(outcome, Trained)]
    best = max(trained, key=lambda one: (one.score, -one.number), default=None)
    for outcome in trained:
        if outcome is not best:
            (outcome.folder / "model.safetensors").unlink(missing_ok=True)
