"""The report of an evaluation: one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from components.shared.data.dataset import Dataset, DatasetDocument, Labels
from components.shared.data.layout.left_out import sentences_on
from components.shared.evaluation.document import EvaluationDocument
from components.shared.evaluation.report import plots
from components.shared.evaluation.report.html import page
from components.shared.evaluation.report.thumbnails import data_uri
from components.shared.models.document import HistoryDocument, ModelDocument

READS = ("templates/report.html",)

TABLE_CLASSES = 20  # with more classes, the confusion matrix is a picture instead of a table
CONFUSIONS = 10
MISTAKES = 50


@dataclass(frozen=True)
class Mistake:
    """A misclassified image (uint8, C x H x W), with the probabilities of the predicted and the true class."""

    image: NDArray[np.uint8]
    number: int
    truth: str
    predicted: str
    probability: float
    truth_probability: float


def worst_mistakes(probabilities: NDArray[np.float32], labels: Labels, data: Dataset) -> list[Mistake]:
    """Return the misclassified test images, the most confident first."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES].tolist()
    return [
        Mistake(
            image=image,
            number=number,
            truth=data.classes[labels[number]],
            predicted=data.classes[predicted[number]],
            probability=float(confidence[number]),
            truth_probability=float(probabilities[number, labels[number]]),
        )
        for number, image in zip(worst, data.take("test", worst), strict=True)
    ]


def left_out_of(dataset: DatasetDocument) -> list[str]:
    """Return a sentence about each kind of files that are not in the dataset."""
    sentences = dataset.left_out.sentences() if dataset.left_out else []
    return sentences + sentences_on(dataset.bad_images or [])


def render(
    *,
    evaluation: EvaluationDocument,
    model: ModelDocument,
    history: HistoryDocument,
    left_out: Sequence[str],
    mistakes: Sequence[Mistake],
    examples: Mapping[str, NDArray[np.uint8]],
) -> str:
    """Return the page of an evaluated model, from its documents.

    `left_out` are sentences about the data, and `examples` has an image (C x H x W) of each test of the behavior.
    """
    matrix, classes = evaluation.confusion_matrix, evaluation.classes
    return page("report.html").render(
        evaluation=evaluation,
        model=model,
        left_out=left_out,
        epochs=history.epochs,
        has_peak=any(epoch.peak_share for epoch in history.epochs),
        mistakes=[(mistake, data_uri(mistake.image)) for mistake in mistakes],
        examples={name: data_uri(image) for name, image in examples.items()},
        wrong=sum(map(sum, matrix)) - sum(row[i] for i, row in enumerate(matrix)),
        matrix=_shaded(matrix) if len(classes) <= TABLE_CLASSES else None,
        confusions=_confusions(matrix, classes),
        # Safe: all texts in the diagrams are our own, except the names of steps, which matplotlib escapes.
        losses=Markup(plots.losses(history.epochs, history.best_epoch)),
        accuracies=Markup(plots.accuracies(history.epochs, history.best_epoch)),
        reliability=Markup(plots.reliability(evaluation.reliability)),
        confusion=Markup(plots.confusion(matrix)) if len(classes) > TABLE_CLASSES else None,
        seconds=Markup(plots.seconds(evaluation.seconds)),
    )


def _shaded(matrix: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """Return each count with the density of its cell in percent: the cube root of its share of the row."""
    return [[(count, round(100 * (count / sum(row)) ** (1 / 3))) for count in row] for row in matrix]


def _confusions(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions: true class, predicted class, count."""
    pairs = [
        (true, predicted, count)
        for true, row in zip(classes, matrix, strict=True)
        for predicted, count in zip(classes, row, strict=True)
        if count and true != predicted
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:CONFUSIONS]
