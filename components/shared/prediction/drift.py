"""Drift: are the pictures that were predicted still like those that the model was evaluated on?

Every statistic of the pictures, how often each class is predicted, and whole pictures are compared with the reference
that step evaluate left. A difference is a finding if its population stability index is above the threshold and it is no
chance: significant after Holm's correction for the number of comparisons.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from components.shared.core.document import Count, Document, Items, Number, Part, Share, require
from components.shared.core.errors import UserError
from components.shared.core.npy import read_npy
from components.shared.prediction.reference import (
    MAX_VECTORS,
    OF_COLOURS,
    OF_PREDICTIONS,
    THUMBNAIL,
    DriftDocument,
    Vectors,
    rounded,
    statistics_of,
)
from components.shared.prediction.sample import ranks_of
from components.shared.prediction.table import THUMBNAIL_COLUMN, read_part
from components.shared.prediction.two_samples import (
    Comparison,
    Counts,
    compare_classes,
    compare_numbers,
    compare_vectors,
    holm,
)

REPORT = "drift-report.json"  # beside the predictions
THRESHOLD = 0.2  # of the PSI: the field calls 0.1 to 0.25 a moderate shift; --drift-threshold says it too
SIGNIFICANCE = 0.05
FEWEST = 100  # pictures of each kind: with fewer, chance alone makes a PSI of 0.1
SEED = 0
CLASSES, PICTURES = "predicted classes", "pictures as a whole"
Test = Literal["Kolmogorov-Smirnov", "chi-squared", "classifier two-sample"]
TESTS: dict[str, Test] = {CLASSES: "chi-squared", PICTURES: "classifier two-sample"}  # the first one for all else

Distance = Annotated[Number, Field(ge=0)]


class DriftMeasure(Part):
    """One comparison with the reference: a statistic, the predicted classes, or the pictures as a whole."""

    name: str
    psi: Distance  # population stability index
    psi_low: Distance
    psi_high: Distance
    test: Test
    effect: Share  # largest distance of distribution functions, total variation distance, area under the ROC curve
    effect_low: Share
    effect_high: Share
    p_value: Share
    corrected_p_value: Share  # by Holm, for the number of comparisons
    is_finding: bool


class DriftReportDocument(Document):
    """`drift-report.json`: whether the predicted pictures are like those that the model was evaluated on."""

    FORMAT = "torch2kubeflow/drift-report"
    REMEDY = "predict again"
    MAX_BYTES = 2**20

    model: str
    pictures: Count  # that could be used
    sample: Count  # of them, whose values the tests compare
    reference: Count  # test images of the model; 0 if there is no reference
    threshold: Distance
    significance: Share
    not_judged: str  # why, if it was not
    drifted: bool
    measures: Items[DriftMeasure]

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        require("drifted", self.drifted == any(measure.is_finding for measure in self.measures))
        require("measures", bool(self.measures) != bool(self.not_judged))
        return self

    @property
    def findings(self) -> list[DriftMeasure]:
        """Return the comparisons that found drift, the largest first."""
        return sorted((one for one in self.measures if one.is_finding), key=lambda one: -one.psi)

    @property
    def sentence(self) -> str:
        """Return the result in words."""
        if self.not_judged:
            return f"drift is not judged: {self.not_judged}"
        if self.findings:
            found = ", ".join(f"{one.name} {one.psi:.2f}" for one in self.findings)
            return f"drift: these differ from the model's test images by a PSI above {self.threshold:g}: {found}"
        largest = max(self.measures, key=lambda one: one.psi)
        why = "may be chance" if largest.psi > self.threshold else f"is not above {self.threshold:g}"
        return f"no drift: the largest of {len(self.measures)} PSIs, {largest.psi:.2f} of {largest.name}, {why}"

    def scalars(self) -> dict[str, float]:
        """Return the figures for Kubeflow."""
        found = {f"psi of {one.name}": one.psi for one in self.measures}
        return {"pictures": float(self.pictures), "drift findings": float(len(self.findings)), **found}


class Reference(NamedTuple):
    """What a model's inputs looked like when it was evaluated."""

    document: DriftDocument
    vectors: Vectors


class Known(NamedTuple):
    """The reference of a model, or why it has none."""

    reference: Reference | None
    no_reference: str = ""


class Predicted(NamedTuple):
    """What predicted pictures look like: the counts of all of them, and the vectors of some."""

    counts: dict[str, Counts]
    classes: Counts
    vectors: Vectors


def read_reference(folder: Path, classes: Sequence[str]) -> Reference:
    """Read the reference in a folder, of a model with these classes. Raises UserError if it is damaged or another's."""
    document, vectors = folder / "drift.json", folder / "reference.npy"
    found = DriftDocument.read(document)
    if found.classes != [*classes]:
        raise UserError(f"{document} is of a model with other classes", DriftDocument.REMEDY)
    colours = sum(name in found.statistics for name in OF_COLOURS)
    names = statistics_of(1 + 2 * colours)
    if [*found.statistics] != names or len(found.columns) != len(names) + THUMBNAIL**2:
        raise UserError(f"{document} has other statistics than this version compares", DriftDocument.REMEDY)
    rows = read_npy(vectors, (found.vectors, len(found.columns)), np.float32)
    if not np.isfinite(rows).all():
        raise UserError(f"{vectors} has numbers that are not finite", DriftDocument.REMEDY)
    return Reference(found, rows)


def judge_drift(
    parts: Sequence[Path], reference: Reference | None, model: str, threshold: float, no_reference: str = ""
) -> DriftReportDocument:
    """Compare the pictures in the parts of a table with the reference of the model, in constant memory.

    The report does not depend on how the pictures are dealt to parts. Without a reference nothing is judged, because of
    `no_reference`. Raises UserError if a part is damaged or was written without thumbnails.
    """
    if reference:
        return compare(reference, _read_predicted(parts, reference.document), model, threshold)
    pictures = sum(int(read_part(path, ["class"])["class"].is_valid().to_numpy().sum()) for path in parts)
    return _report([], pictures, 0, 0, model, threshold, no_reference)


def _too_few(number: int, what: str) -> str:
    return f"{number:,} {what}{' is' if number == 1 else 's are'} there, and at least {FEWEST} are needed"


def compare(reference: Reference, found: Predicted, model: str, threshold: float) -> DriftReportDocument:
    """Compare predicted pictures with the reference of the model."""
    pictures, images = int(found.classes.sum()), reference.document.images
    short = next(((n, what) for n, what in ((pictures, "picture"), (images, "test image")) if n < FEWEST), None)
    reason = _too_few(*short) if short else ""
    compared = {} if reason else _compare(reference, found)
    return _report(_measures(compared, threshold), pictures, len(found.vectors), images, model, threshold, reason)


def _report(
    measures: list[DriftMeasure], pictures: int, sample: int, images: int, model: str, threshold: float, reason: str
) -> DriftReportDocument:
    return DriftReportDocument(
        model=model,
        pictures=pictures,
        sample=sample,
        reference=images,
        threshold=threshold,
        significance=SIGNIFICANCE,
        not_judged=reason,
        drifted=any(one.is_finding for one in measures),
        measures=measures,
    )


def _compare(reference: Reference, found: Predicted) -> dict[str, Comparison]:
    document, statistics = reference.document, reference.document.statistics
    compared = {
        name: compare_numbers(
            (np.array(statistics[name].counts), reference.vectors[:, column]),
            (found.counts[name], found.vectors[:, column]),
            SEED,
        )
        for column, name in enumerate(statistics)
    }
    compared[CLASSES] = compare_classes(np.array(document.predicted), found.classes, SEED)
    compared[PICTURES] = compare_vectors(reference.vectors, found.vectors, SEED)
    return compared


def _measures(compared: dict[str, Comparison], threshold: float) -> list[DriftMeasure]:
    corrected = holm([one.p_value for one in compared.values()])
    return [
        DriftMeasure(
            name=name,
            psi=one.psi.value,
            psi_low=one.psi.low,
            psi_high=one.psi.high,
            test=TESTS.get(name, "Kolmogorov-Smirnov"),
            effect=one.effect.value,
            effect_low=one.effect.low,
            effect_high=one.effect.high,
            p_value=one.p_value,
            corrected_p_value=p_value,
            is_finding=one.psi.value > threshold and p_value < SIGNIFICANCE,
        )
        for (name, one), p_value in zip(compared.items(), corrected, strict=True)
    ]


def _read_predicted(parts: Sequence[Path], document: DriftDocument) -> Predicted:
    """Read what the pictures of all parts look like, one part after the other."""
    counts = {name: np.zeros(len(histogram.counts), np.int64) for name, histogram in document.statistics.items()}
    classes = np.zeros(len(document.classes), np.int64)
    sample = _Sample(len(document.columns))
    for table in _tables(parts, [*document.statistics]):
        for name, histogram in document.statistics.items():
            counts[name] += histogram.count(_numbers(table, name))
        numbers = table["class"].combine_chunks().dictionary_encode()
        places = [document.classes.index(name) for name in numbers.dictionary.to_pylist()]
        classes[places] += np.bincount(numbers.indices.to_numpy(), minlength=len(places))
        sample.add(table, [*document.statistics])
    return Predicted(counts, classes, sample.vectors)


def _tables(parts: Sequence[Path], statistics: Sequence[str]) -> Iterator[pa.Table]:
    """Yield of each part the pictures that could be used."""
    names = [_column(name) for name in statistics]
    columns = ["source", "digest", "class", *names, THUMBNAIL_COLUMN]
    for path in parts:
        table = read_part(path, columns)
        yield table.filter(table["class"].is_valid())


class _Sample:
    """The pictures with the lowest ranks so far."""

    def __init__(self, columns: int) -> None:
        self.vectors: Vectors = np.zeros((0, columns), np.float32)
        self._ranks: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def add(self, table: pa.Table, statistics: Sequence[str]) -> None:
        """Take pictures of a part that have a thumbnail."""
        table = table.filter(table[THUMBNAIL_COLUMN].is_valid())
        thumbnails = table[THUMBNAIL_COLUMN].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
        vectors = np.column_stack([*(_numbers(table, name) for name in statistics), thumbnails])
        ranks = np.append(self._ranks, ranks_of(table["source"].to_pylist(), table["digest"].to_pylist()))
        lowest = np.argsort(ranks, kind="stable")[:MAX_VECTORS]
        self.vectors, self._ranks = np.concatenate([self.vectors, vectors])[lowest], ranks[lowest]


def _numbers(table: pa.Table, statistic: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = table[_column(statistic)].to_numpy()
    return rounded(values) if statistic in OF_PREDICTIONS else values


def _column(statistic: str) -> str:
    return "probability" if statistic == "confidence" else statistic
