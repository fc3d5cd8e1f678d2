"""The document `evaluation.json` of an evaluated model, and the figures in it."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from components.shared.core.document import (
    Count,
    Document,
    Items,
    Names,
    Number,
    Part,
    Sha256,
    Share,
    Size,
    require,
)
from components.shared.evaluation.calibration import Calibration
from components.shared.parameters.evaluation import Gates

METRICS = (  # those that are a single number
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "weakest_recall",
    "macro_f1",
    "log_loss",
    "expected_calibration_error",
)


class ClassMetrics(Part):
    """The figures of one class; precision is 0 if nothing was predicted as the class."""

    name: str = Field(alias="class")
    images: Size
    precision: Share
    recall: Share
    f1: Share


class Bin(Part):
    """The predictions whose confidence lies in one interval: their number, mean confidence and accuracy."""

    low: Share
    high: Share
    images: Size
    confidence: Share
    accuracy: Share


class Slice(Part):
    """The figures of a part of the test split; those of the accuracy's interval are of 95 %."""

    name: str
    images: Size
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share
    expected_calibration_error: Share


class BrightnessSlice(Slice):
    """Test images whose mean pixel, of 0..1, lies between these."""

    darkest: Share
    brightest: Share


class SizeSlice(Slice):
    """Test images whose pictures had from so many to so many pixels in the source."""

    smallest: Size
    largest: Size


class Slices(Part):
    """The test split by class, by brightness, and by the size of the pictures in the source."""

    by_class: Items[Slice]
    by_brightness: Items[BrightnessSlice]
    by_size: Items[SizeSlice] = Field(default_factory=list)  # none if all are equal, or not known
    is_size_known: bool = False


class BehaviorTest(Part):
    """What a classifier predicts of test images that were changed in one way."""

    name: str
    change: str  # in words, with its strength
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share
    unchanged: Share  # predictions that are those of the image before the change, right or wrong


class Behavior(Part):
    """The tests on images drawn from the test split, and the accuracy on these images as they are."""

    images: Size
    seed: Count
    accuracy: Share
    tests: Items[BehaviorTest]

    def reasons(self, min_behavior: Mapping[str, float]) -> list[str]:
        """Return why a classifier is not accepted by the least accuracy in some of the tests."""
        found = {test.name: test.accuracy for test in self.tests}
        return [
            f"accuracy {found[name]:.6g} on {name} images is below {least:.6g} (min_behavior)"
            for name, least in min_behavior.items()
            if found[name] < least
        ]


class Verdict(Part):
    """Whether a model is accepted, by these thresholds."""

    accepted: bool
    reasons: list[str]  # why it is not
    min_accuracy: Share
    min_recall: Share  # of each class
    min_behavior: dict[str, Share] = Field(default={})  # accuracy in the tests of the behavior

    @model_validator(mode="after")
    def _has_reasons(self) -> Self:
        require("reasons", self.accepted == (not self.reasons))
        return self


class Metrics(Part):
    """All figures of a classifier on the test split; those of the accuracy's interval are of 95 %."""

    images: Size
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share
    weakest_recall: Share
    macro_f1: Share
    log_loss: Number
    expected_calibration_error: Share
    classes: Names
    per_class: Items[ClassMetrics]
    confusion_matrix: Items[Items[Count]]  # a row for each true class, a column for each predicted one
    reliability: Items[Bin]

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        size = len(self.classes)
        require("per_class", [row.name for row in self.per_class] == self.classes)
        require("confusion_matrix", [len(row) for row in self.confusion_matrix] == [size] * size)
        return self

    def scalars(self) -> dict[str, float]:
        """Return those that are a single number, by name."""
        return {name: getattr(self, name) for name in METRICS}

    def judge(self, gates: Gates, behavior: Behavior | None = None) -> Verdict:
        """Return whether a classifier with these figures and this behavior is accepted, and if not, why."""
        reasons = []
        if self.accuracy < gates.min_accuracy:
            reasons.append(f"accuracy {self.accuracy:.6g} is below min_accuracy={gates.min_accuracy}")
        weak = [row for row in self.per_class if row.recall < gates.min_recall]
        if weak:
            weakest = min(weak, key=lambda row: row.recall)
            others = f" (and that of {len(weak) - 1} more)" if len(weak) > 1 else ""
            reasons.append(
                f"recall {weakest.recall:.6g} of class {weakest.name!r}{others} is below min_recall={gates.min_recall}"
            )
        reasons += behavior.reasons(gates.min_behavior) if behavior else []
        limits = {name: getattr(gates, name) for name in ("min_accuracy", "min_recall", "min_behavior")}
        return Verdict(accepted=not reasons, reasons=reasons, **limits)


class EvaluationDocument(Metrics, Verdict, Document):  # from the right to the left, this is the order of the fields
    """`evaluation.json`: the verdict, the figures and what they are of."""

    FORMAT = "torch2kubeflow/evaluation"
    REMEDY = "evaluate the model again"
    MAX_BYTES = 2**28  # a confusion matrix of 5,000 classes

    dataset: str
    dataset_digest: Sha256
    model_digest: Sha256
    code_version: str
    calibration: Calibration | None = None
    slices: Slices | None = None
    behavior: Behavior | None = None
    seconds: dict[str, Number]  # that each step of the pipeline took

    @model_validator(mode="after")
    def _slices_agree(self) -> Self:
        if self.slices:
            require("slices.by_class", [part.name for part in self.slices.by_class] == self.classes)
        return self
