"""Predict all pictures of a folder by a package: a table in whole parts, and a page of the least certain ones.

A run that was interrupted goes on after the last whole part, and none of its rows is repeated or lost.
"""

import time
from pathlib import Path

from components.shared.core import log
from components.shared.core.document import Count, Document, Sha256
from components.shared.core.errors import UserError
from components.shared.prediction.document import CSV, MANIFEST, PAGE, PredictionsDocument
from components.shared.prediction.drift import REPORT, THRESHOLD, Known, judge_drift
from components.shared.prediction.inputs import Inputs
from components.shared.prediction.overview import summarise, write_page
from components.shared.prediction.rows import Program, Timed, write_parts
from components.shared.prediction.table import part_path, part_rows, whole_parts, write_csv
from components.shared.prediction.uncertain import least_certain, pictures_of

TASK = "task.json"


class PredictionTaskDocument(Document):
    """`task.json`: what is predicted by what, so that no other run goes on with the parts beside it."""

    FORMAT = "torch2kubeflow/prediction-task"
    REMEDY = "give another folder, or remove this one"

    data_digest: Sha256
    package_digest: Sha256
    model: str
    part_rows: Count


def predict_all(
    inputs: Inputs, program: Program, folder: Path, known: Known | None = None, drift_threshold: float = THRESHOLD
) -> PredictionsDocument:
    """Predict all pictures into a folder, which may hold the parts of an interrupted run of the same.

    Whether they are like those that the model was evaluated on is in `drift-report.json` then. Raises UserError if the
    folder holds the predictions of another run.
    """
    started, rows = time.monotonic(), part_rows(inputs.size)
    task = PredictionTaskDocument(
        data_digest=inputs.digest, package_digest=program.package.digest, model=program.model, part_rows=rows
    )
    first, timed = _begin(folder, task), Timed(program.classify)
    for _ in write_parts(inputs, program._replace(classify=timed), folder, first, None, rows):
        pass
    parts = sorted(folder.glob("part-*.parquet"))
    write_csv(parts, folder / CSV)
    document = summarise(
        parts,
        program.package,
        model=program.model,
        data_digest=inputs.digest,
        resumed_at=first * rows,
        seconds={},
    )
    reference, reason = known or Known(None, f"{program.model} has no reference")
    drift = judge_drift(parts, reference, program.model, drift_threshold, reason)
    drift.write(folder / REPORT)
    least = least_certain(parts, rows)
    write_page(folder / PAGE, document, drift, program.package, least, pictures_of(inputs, least))
    seconds = {"all": time.monotonic() - started, "program": timed.seconds}
    document = document.model_copy(update={"seconds": seconds, "drift": drift.sentence})
    document.write(folder / MANIFEST)
    return document


def _begin(folder: Path, task: PredictionTaskDocument) -> int:
    """Return the number of whole parts in the folder. Raises UserError if they are those of another task."""
    path = folder / TASK
    if path.exists() and (found := PredictionTaskDocument.read(path)) != task:
        raise UserError(
            f"{folder} holds predictions by {found.model} of other data, or by another model",
            PredictionTaskDocument.REMEDY,
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty", "give a new or empty folder")
        task.write(path)
    (folder / MANIFEST).unlink(missing_ok=True)
    first = whole_parts(folder, task.part_rows)
    for path in folder.glob("part-*"):
        if not path.name.endswith(".parquet") or path >= part_path(folder, first):
            path.unlink()
    if first:
        log.info(f"goes on after {first * task.part_rows:,} pictures, which are predicted already")
    return first
