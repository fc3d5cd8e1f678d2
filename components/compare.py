"""Step compare: the trials of a sweep -> the best model, by the validation split alone, and a report about all.

The test split stays unseen: chosen by it, the best of many would owe part of its figures to luck.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from components.shared.core import log
from components.shared.core.errors import UserError, error_from_json
from components.shared.core.files import Document, new_file, new_folder, read_json, write_json
from components.shared.core.step import step
from components.shared.evaluation.report import plots
from components.shared.evaluation.report.html import page
from components.shared.parameters import check
from components.shared.training.checkpoints.store import delete_superseded

READS = ("shared/evaluation/report/templates/comparison.html",)

FORMAT = "torch2kubeflow/comparison"


@step
def compare(
    *,
    models: Sequence[str | Path],
    store: str,
    model: str | Path,
    comparison: str | Path,
    sweep: str | Path,
) -> None:
    """Copy the best of the folders `models` to folder `model`; write folder `comparison` and the page `sweep`.

    The best has the highest validation accuracy or, among equals, the lowest validation loss. Of the checkpoints of
    each trial only the last one stays in `store`. Raises UserError if no trial made a model.
    """
    check(store=store)
    trials = [_Trial.read(number, Path(folder)) for number, folder in enumerate(models, 1)]
    trained = [trial for trial in trials if trial.best]
    if not trained:
        raise _no_model(trials)
    best = max(trained, key=lambda trial: (trial.best["val_accuracy"], -trial.best["val_loss"]))
    with new_folder(model) as folder:
        shutil.copytree(best.folder, folder, dirs_exist_ok=True)
    if store:
        delete_superseded(store, (trial.checkpoints for trial in trained))
    with new_folder(comparison) as folder:
        rows = [trial.row for trial in trials]
        write_json(folder / "comparison.json", {"format": FORMAT, "best": best.number, "trials": rows})
    _write_page(sweep, trials, best)
    log.info(f"the best of {len(trials)} trials is {best.number}: val accuracy {best.best['val_accuracy']:.2%}")


@dataclass(frozen=True)
class _Trial:
    """The outcome of one setting; `best` is its best epoch, empty if there is no model."""

    number: int
    folder: Path
    settings: Document
    error: UserError | None
    history: Document
    best: Document

    @classmethod
    def read(cls, number: int, folder: Path) -> "_Trial":
        document = read_json(folder / "trial.json", "torch2kubeflow/trial")
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


def _no_model(trials: Sequence[_Trial]) -> UserError:
    reasons = "; ".join(f"trial {trial.number}: {trial.error}" for trial in trials)
    return UserError(f"none of the {len(trials)} trials made a model: {reasons}", "give other settings")


def _write_page(path: str | Path, trials: Sequence[_Trial], best: _Trial) -> None:
    curves = {str(trial.number): (trial.state, trial.history["epochs"]) for trial in trials if trial.best}
    html = page("comparison.html").render(
        trials=sorted(trials, key=lambda trial: -trial.best.get("val_accuracy", -1)),
        best=best,
        names=sorted({name for trial in trials for name in trial.settings}),
        curves=Markup(plots.trials(curves, str(best.number))),  # made of numbers and our own texts
    )
    with new_file(path) as file:
        file.write(html.encode())
