"""Step compare: the trials of a sweep -> the best model, by the validation split alone, and a report about all.

The test split stays unseen: chosen by it, the best of many would owe part of its figures to luck.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import new_file, new_folder
from components.shared.core.step import step
from components.shared.evaluation.report import plots
from components.shared.evaluation.report.html import page
from components.shared.parameters.common import StoreUri
from components.shared.training.checkpoints.store import delete_superseded
from components.shared.training.search.outcome import (
    ComparisonDocument,
    Outcome,
    Trained,
    TrialFigures,
    read_outcomes,
)

READS = ("shared/evaluation/report/templates/comparison.html",)


@step
def compare(
    *,
    trials: Sequence[str | Path],
    store: str,
    model: str | Path,
    comparison: str | Path,
    sweep: str | Path,
) -> None:
    """Copy the best model of all trials to folder `model`; write folder `comparison` and the page `sweep`.

    `trials` are the folders of step trial. The best has the highest validation accuracy or, among equals, the lowest
    validation loss. Of the checkpoints of each trial only the last one stays in `store`. Raises UserError if no trial
    made a model.
    """
    StoreUri.of(store=store)
    found = sorted((one for pod in trials for one in read_outcomes(Path(pod))), key=lambda one: one.number)
    trained = [trial for trial in found if isinstance(trial, Trained)]
    if not trained:
        raise _no_model(found)
    best = max(trained, key=lambda trial: trial.score)
    with new_folder(model) as folder:
        shutil.copytree(best.folder, folder, dirs_exist_ok=True)
    if store:
        delete_superseded(store, (trial.checkpoints for trial in trained))
    with new_folder(comparison) as folder:
        figures = [trial.figures for trial in found]
        ComparisonDocument(best=best.number, trials=figures).write(folder / "comparison.json")
    _write_page(sweep, figures, trained, best.figures)
    log.info(f"the best of {len(found)} trials is {best.number}: val accuracy {best.history.best.val_accuracy:.2%}")


def _no_model(trials: Sequence[Outcome]) -> UserError:
    reasons = "; ".join(f"trial {trial.number}: {trial.figures.reason}" for trial in trials)
    return UserError(f"none of the {len(trials)} trials made a model: {reasons}", "give other settings")


def _write_page(
    path: str | Path, trials: Sequence[TrialFigures], trained: Sequence[Trained], best: TrialFigures
) -> None:
    curves = {str(trial.number): (trial.figures.state, trial.history.epochs) for trial in trained}
    html = page("comparison.html").render(
        trials=sorted(trials, key=lambda trial: 1 if trial.val_accuracy is None else -trial.val_accuracy),
        best=best,
        names=sorted({name for trial in trials for name in trial.settings}),
        curves=Markup(plots.trials(curves, str(best.number))),  # made of numbers and our own texts
    )
    with new_file(path) as file:
        file.write(html.encode())
