"""Predict all pictures of a folder by a package: a table in whole parts, and a page of the least certain ones.

A run that was interrupted goes on after the last whole part, and none of its rows is repeated or lost.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.shared.core import log
from components.shared.core.document import Count, Document, Fingerprint, Names, Number, Sha256
from components.shared.core.errors import UserError
from components.shared.core.files import new_file, sha256_file
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.evaluation.inference import Classify, load_onnx
from components.shared.evaluation.report.predictions import render_predictions
from components.shared.evaluation.report.thumbnails import data_uri
from components.shared.prediction.drift import REPORT, THRESHOLD, DriftReportDocument, Reference, judge_drift
from components.shared.prediction.inputs import Inputs
from components.shared.prediction.table import COLUMNS, Part, part_path, part_rows, read_part, whole_parts, write_csv

LEAST_CERTAIN = 50  # pictures on the page
TASK, MANIFEST = "task.json", "predictions.json"


class PredictionTaskDocument(Document):
    """`task.json`: what is predicted by what, so that no other run goes on with the parts beside it."""

    FORMAT = "torch2kubeflow/prediction-task"
    REMEDY = "give another folder, or remove this one"

    data_digest: Sha256
    package_digest: Sha256
    model: str
    part_rows: Count


class PredictionsDocument(Document):
    """`predictions.json`, written last: the parts of the table, and what they hold."""

    FORMAT = "torch2kubeflow/predictions"
    REMEDY = "predict again"

    model: str
    package_digest: Sha256
    data_digest: Sha256
    rows: Count
    errors: Count  # rows of pictures that cannot be used
    labelled: Count  # rows with a label and without an error
    correct: Count  # of those
    predicted: dict[str, Count]  # rows of each class
    columns: Names
    parts: dict[str, Fingerprint]
    resumed_at: Count  # rows that an interrupted run had predicted
    seconds: dict[str, Number]  # of this run: in all, and by the program


class Program(NamedTuple):
    """An exported model that predicts, its name for the table, and the reference for drift, or why it has none."""

    package: PackageDocument
    classify: Classify
    model: str
    reference: Reference | None = None
    no_reference: str = ""


def open_program(onnx: Path, package: Path, model: str, threads: int) -> Program:
    """Open a package's program. Raises UserError if it is not the one that `package.json` describes."""
    document = PackageDocument.read(package)
    if sha256_file(onnx) != document.files["model.onnx"].sha256:
        raise UserError(f"{onnx} differs from its digest in {package}", "download or export it again")
    return Program(document, load_onnx(onnx, threads), model, no_reference=f"{model} has no reference")


def predict_all(
    inputs: Inputs, program: Program, folder: Path, drift_threshold: float = THRESHOLD
) -> PredictionsDocument:
    """Predict all pictures into a folder, which may hold the parts of an interrupted run of the same.

    Whether they are like those that the model was evaluated on is in `drift-report.json` then. Raises UserError if the
    folder holds the predictions of another run.
    """
    started, rows = time.monotonic(), part_rows(inputs.size)
    task = PredictionTaskDocument(
        data_digest=inputs.digest, package_digest=program.package.digest, model=program.model, part_rows=rows
    )
    first = _begin(folder, task)
    busy = _write_parts(inputs, program, folder, first, rows)
    parts = sorted(folder.glob("part-*.parquet"))
    write_csv(parts, folder / "predictions.csv")
    document = _summary(parts, task, program.package, first * rows)
    drift = judge_drift(parts, program.reference, program.model, drift_threshold, program.no_reference)
    drift.write(folder / REPORT)
    _write_page(inputs, program, parts, rows, document, drift, folder / "uncertain.html")
    seconds = {"all": time.monotonic() - started, "program": busy}
    document = document.model_copy(update={"seconds": seconds})
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


def _write_parts(inputs: Inputs, program: Program, folder: Path, number: int, rows: int) -> float:
    """Predict all pictures from part `number` on, and return the seconds that the program took."""
    package, busy = program.package, 0.0
    progress = log.Progress("predict", inputs.count, "pictures")
    progress.advance(number * rows)
    new = partial(Part, package.classes, package.input.sizes[0], program.model, package.digest)
    part = new()
    for batch in inputs.batches(first=number * rows):
        started = time.monotonic()
        found = program.classify(batch.images) if len(batch.images) else np.zeros((0, len(package.classes)), np.float32)
        busy += time.monotonic() - started
        part.add(batch, found)
        progress.advance(len(batch.names))
        if len(part) == rows:
            part.write(part_path(folder, number))
            part, number = new(), number + 1
    if len(part):
        part.write(part_path(folder, number))
    return busy


def _summary(
    parts: list[Path], task: PredictionTaskDocument, package: PackageDocument, resumed_at: int
) -> PredictionsDocument:
    rows = errors = labelled = correct = 0
    predicted = dict.fromkeys(package.classes, 0)
    for path in parts:
        table = read_part(path, ["class", "label"])
        for found, label in zip(table["class"].to_pylist(), table["label"].to_pylist(), strict=True):
            rows += 1
            errors += found is None
            if found is not None:
                predicted[found] += 1
                labelled += label is not None
                correct += label == found
    return PredictionsDocument(
        model=task.model,
        package_digest=task.package_digest,
        data_digest=task.data_digest,
        rows=rows,
        errors=errors,
        labelled=labelled,
        correct=correct,
        predicted=predicted,
        columns=list(COLUMNS),
        parts={path.name: Fingerprint(sha256=sha256_file(path), bytes=path.stat().st_size) for path in parts},
        resumed_at=resumed_at,
        seconds={},
    )


class _Uncertain(NamedTuple):
    """A picture with a low probability of its class."""

    probability: float
    number: int
    source: str
    found: str


def _write_page(
    inputs: Inputs,
    program: Program,
    parts: list[Path],
    rows: int,
    document: PredictionsDocument,
    drift: DriftReportDocument,
    path: Path,
) -> None:
    least = sorted(_uncertain(parts, rows))[:LEAST_CERTAIN]
    images = {
        row.number: data_uri(batch.images[0])
        for row, batch in zip(
            sorted(least, key=lambda row: row.number), inputs.take(sorted(row.number for row in least)), strict=True
        )
    }
    html = render_predictions(document, drift, program.package, [(row, images[row.number]) for row in least])
    with new_file(path) as file:
        file.write(html.encode())


def _uncertain(parts: list[Path], part_rows: int) -> Iterator[_Uncertain]:
    """Yield the least certain pictures of each part."""
    for number, path in enumerate(parts):
        table = read_part(path, ["probability", "source", "class"])
        columns = (table[name].to_pylist() for name in ("probability", "source", "class"))
        rows = [
            _Uncertain(probability, number * part_rows + row, source, found)
            for row, (probability, source, found) in enumerate(zip(*columns, strict=True))
            if probability is not None
        ]
        yield from sorted(rows)[:LEAST_CERTAIN]
