"""Step evaluate: a model and the test split -> figures, a report and a verdict.

The labels of the test split choose nothing, except the champion in the step register, which counts how often they do.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.files import new_file, new_folder, write_json
from components.shared.core.npy import write_npy
from components.shared.core.step import step
from components.shared.core.torch_runtime import prepare_process
from components.shared.data.dataset import Dataset, Labels
from components.shared.evaluation.behavior import Observed, observe
from components.shared.evaluation.calibration import calibration
from components.shared.evaluation.classifier import Classifier, on_arrays
from components.shared.evaluation.document import Behavior, EvaluationDocument
from components.shared.evaluation.inference import batch_size
from components.shared.evaluation.metrics import Probabilities, measure, roc_curve
from components.shared.evaluation.report.report import Mistake, left_out_of, render, worst_mistakes
from components.shared.evaluation.slices import slices
from components.shared.evaluation.trained_model import open_trained, predict_test_split
from components.shared.models import saved_model
from components.shared.parameters.evaluation import EvaluateRecipe, Gates
from components.shared.prediction.reference import reference
from components.shared.training.checkpoints.store import delete_superseded


class Evaluation(NamedTuple):
    """The verdict and the figures that Kubeflow shows, in plain Python types."""

    accepted: bool
    metrics: dict[str, float]
    classes: list[str]
    confusion_matrix: list[list[int]]
    roc_curve: tuple[list[float], list[float], list[float]]


@step
def evaluate(
    *,
    dataset: str | Path,
    model: str | Path,
    recipe: str,
    metrics: str | Path,
    classification: str | Path,
    report: str | Path,
    evaluation: str | Path,
) -> Evaluation:
    """Measure `model` on the test split of `dataset`; write the page `report` and the folder `evaluation`.

    The folder holds `predictions.npy` (float32, N x classes), the reference for drift (`drift.json`, `reference.npy`)
    and, written last, `evaluation.json`. What Kubeflow shows is also written to the JSON files `metrics` and
    `classification`. Of the checkpoints of the training, only the last one stays in the store. Raises UserError if
    `recipe` is invalid or the model was trained on another dataset.
    """
    started = time.monotonic()
    parameters = EvaluateRecipe.read(recipe)
    data, trained = open_trained(dataset, model)
    if parameters.store:
        delete_superseded(parameters.store, [(trained.document.checkpoint_key, trained.history.checkpoints)])
    prepare_process(parameters.threads)
    with new_folder(evaluation) as folder:
        classifier = Classifier(trained)
        probabilities, labels = predict_test_split(classifier, data)
        write_npy(folder / "predictions.npy", probabilities)
        _write_reference(folder, data, probabilities)
        images = parameters.behavior_images
        observed = observe(on_arrays(classifier), data, probabilities, labels, images=images) if images else None
        behavior = observed.behavior if observed else None
        document = _describe(probabilities, labels, behavior, data, trained, parameters, started)
        _write_report(report, document, trained, data, worst_mistakes(probabilities, labels, data), observed)
        document = document.model_copy(update={"seconds": _seconds(trained, started)})
        document.write(folder / "evaluation.json")
    log.info(f"test accuracy {document.accuracy:.2%}: {'; '.join(document.reasons) or 'accepted'}")
    log.event("verdict", accuracy=document.accuracy, accepted=document.accepted, reasons=document.reasons)
    result = _result(document, roc_curve(labels, probabilities))
    write_json(metrics, result.metrics)
    write_json(classification, {name: getattr(result, name) for name in ("classes", "confusion_matrix", "roc_curve")})
    return result


def _describe(
    probabilities: Probabilities,
    labels: Labels,
    behavior: Behavior | None,
    data: Dataset,
    model: saved_model.Model,
    gates: Gates,
    started: float,
) -> EvaluationDocument:
    metrics = measure(probabilities, labels, data.classes)
    return EvaluationDocument(
        **dict(metrics.judge(gates, behavior)),
        **dict(metrics),
        dataset=data.document.name,
        dataset_digest=data.digest,
        model_digest=model.digest,
        code_version=code_digest(__name__),
        calibration=calibration(probabilities, labels, model.document.temperature),
        slices=slices(probabilities, labels, data),
        behavior=behavior,
        seconds=_seconds(model, started),
    )


def _write_reference(folder: Path, data: Dataset, probabilities: Probabilities) -> None:
    """Write what later inputs are compared with."""
    size = batch_size(data.image_shape)
    images = (images for images, _ in data.batches("test", size))
    rows = np.split(probabilities, range(size, len(probabilities), size))
    document, vectors = reference(zip(images, rows, strict=True), data.classes)
    write_npy(folder / "reference.npy", vectors)
    document.write(folder / "drift.json")


def _seconds(model: saved_model.Model, started: float) -> dict[str, float]:
    """Return the seconds of the steps so far."""
    return {**model.history.seconds, "evaluate": time.monotonic() - started}


def _result(document: EvaluationDocument, curve: tuple[list[float], list[float], list[float]]) -> Evaluation:
    return Evaluation(
        accepted=document.accepted,
        metrics=document.scalars(),
        classes=document.classes,
        confusion_matrix=document.confusion_matrix,
        roc_curve=curve,
    )


def _write_report(
    path: str | Path,
    document: EvaluationDocument,
    model: saved_model.Model,
    data: Dataset,
    mistakes: Sequence[Mistake],
    observed: Observed | None,
) -> None:
    page = render(
        evaluation=document,
        model=model.document,
        history=model.history,
        left_out=left_out_of(data.document),
        mistakes=mistakes,
        examples=observed.examples if observed else {},
    )
    with new_file(path) as file:
        file.write(page.encode())
