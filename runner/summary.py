"""`summary.json`: the result of a run for scripts, the same document for a local run and for one in the cluster."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from components.shared.core.document import (
    Count,
    Document,
    Items,
    JsonObject,
    Names,
    Number,
    Part,
    Sha256,
    Share,
    Size,
    Time,
)
from components.shared.core.printable import told_values
from components.shared.data.dataset import DatasetDocument
from components.shared.data.layout.left_out import LeftOut
from components.shared.evaluation.document import EvaluationDocument
from components.shared.prediction.document import PredictionsDocument
from components.shared.registry.document import RegistrationDocument
from components.shared.training.search.outcome import ComparisonDocument, TrialFigures

Read = TypeVar("Read", bound=Document)


class StepState(Part, frozen=False):
    """What happened to a step; the passes of a loop are one step."""

    state: str
    seconds: Number


class DatasetFacts(Part):
    """The prepared data of a run."""

    digest: Sha256
    classes: Names
    counts: dict[str, Count]  # of images, by split
    left_out: LeftOut | None = None


class Registered(Part):
    """The model of a run in the store; without a store it has no version."""

    name: str
    version: Size | None
    is_champion: bool
    reason: str


class Sweep(Part):
    """The trials of a sweep, and the number of the best one."""

    best: Size
    trials: Items[TrialFigures]


class Predicted(Part):
    """The table of a prediction: how many pictures, and how many of them are unusable or have a label."""

    model: str
    rows: Count
    errors: Count
    labelled: Count
    correct: Count  # of those
    drift: str  # what was found, in words
    training: str  # what followed of it; empty without drift


class SummaryDocument(Document):
    """`summary.json`; what is not known is null, and every path is relative to the run's folder."""

    FORMAT = "torch2kubeflow/summary"
    REMEDY = "run the pipeline again"

    pipeline: str
    run_id: str
    state: str
    started: Time  # in UTC
    seconds: Number
    parameters: JsonObject
    steps: dict[str, StepState]
    error: str | None
    dataset: DatasetFacts | None
    test_accuracy: Share | None
    accepted: bool | None
    reasons: list[str] | None
    registered: Registered | None
    sweep: Sweep | None
    predicted: Predicted | None = None
    artifacts: dict[str, str]


def collect(
    pipeline: str,
    folder: Path,
    started: float,
    state: str,
    parameters: JsonObject,
    steps: dict[str, StepState],
    cached: dict[str, Path],
    error: str | None,
) -> SummaryDocument:
    """Return the summary of the run of a `pipeline` in `folder`; `started` is in seconds since 1970.

    `cached` are the artifacts in the folders of earlier runs, by name.
    """
    earlier = {
        name: Path(os.path.relpath(path, folder.resolve())).as_posix()
        for name, path in cached.items()
        if _is_artifact(path)
    }
    artifacts = _artifacts(folder, pipeline, steps) | earlier
    dataset = _read(DatasetDocument, folder, artifacts, "dataset")
    evaluation = _read(EvaluationDocument, folder, artifacts, "evaluation")
    registration = _read(RegistrationDocument, folder, artifacts, "registration")
    comparison = _read(ComparisonDocument, folder, artifacts, "comparison")
    predictions = _read(PredictionsDocument, folder, artifacts, "predictions")
    return SummaryDocument(
        pipeline=pipeline,
        run_id=folder.name,
        state=state,
        started=time_text(started),
        seconds=round(time.time() - started, 3),
        parameters=told_values(parameters),
        steps=steps,
        error=error,
        dataset=_dataset_facts(dataset) if dataset else None,
        test_accuracy=evaluation.accuracy if evaluation else None,
        accepted=evaluation.accepted if evaluation else None,
        reasons=evaluation.reasons if evaluation else None,
        registered=registered_by(registration) if registration else None,
        sweep=Sweep(best=comparison.best, trials=comparison.trials) if comparison else None,
        predicted=predicted_by(predictions) if predictions else None,
        artifacts=artifacts,
    )


def time_text(seconds: float) -> str:
    """Return a time in seconds since 1970 as ISO 8601, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _dataset_facts(dataset: DatasetDocument) -> DatasetFacts:
    counts = {name: split.count for name, split in dataset.splits.items()}
    return DatasetFacts(digest=dataset.digest, classes=dataset.classes, counts=counts, left_out=dataset.left_out)


def registered_by(registration: RegistrationDocument) -> Registered:
    """Return what the summary tells of a registration."""
    return Registered(
        name=registration.name,
        version=registration.version,
        is_champion=registration.is_champion,
        reason=registration.reason,
    )


def predicted_by(predictions: PredictionsDocument) -> Predicted:
    """Return what the summary tells of a table of predictions."""
    return Predicted(**{name: getattr(predictions, name) for name in Predicted.model_fields})


def _artifacts(folder: Path, pipeline: str, steps: Iterable[str]) -> dict[str, str]:
    """Return name -> relative path of every artifact that KFP's local runner wrote to <pipeline>/<step>/.

    The artifacts of a step in a loop, with a folder for each pass, are left out: their names are not unique.
    """
    found = sorted(path for step in steps for path in folder.glob(f"{pipeline}-*/{step}/*"))
    return {path.name: path.relative_to(folder).as_posix() for path in found if _is_artifact(path)}


def _is_artifact(path: Path) -> bool:
    """Return whether a path in a step's folder is an artifact; the package of a model not accepted is none."""
    return path.name != "executor_output.json" and not (path / "refused.json").exists()


def _read(kind: type[Read], folder: Path, artifacts: dict[str, str], name: str) -> Read | None:
    """Return the document of the artifact `name`; None if the run did not get to it."""
    path = artifacts.get(name)
    return kind.read(folder / path / f"{name}.json") if path else None
