"""The parameters of the steps evaluate and export, which come to the same verdict about a model."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from components.shared.core.errors import UserError, did_you_mean
from components.shared.parameters.common import StoreUri, Threads
from components.shared.parameters.recipe import Accepts, Recipe, explained, parameter

BEHAVIOR = ("shifted", "thinned", "inverted", "noisy", "occluded")  # the tests of evaluation/behavior.py
MAX_BEHAVIOR_IMAGES = 2000

Share = Annotated[float, Field(ge=0, le=1)]


def _refuse_behavior(least: dict[str, Any]) -> str:
    for name, value in least.items():
        if name not in BEHAVIOR:
            return f"{name!r} is not a test{did_you_mean(name, BEHAVIOR)}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            return f"the value of {name!r} is no number from 0 to 1"
    return ""


def _as_shares(least: dict[str, Any]) -> dict[str, float]:
    """Return the numbers in one type, so that 1 and 1.0 give the same text of a recipe."""
    return {name: float(value) for name, value in least.items()}


class Gates(Recipe):
    """What a model must reach to be accepted."""

    min_accuracy: Share = parameter(0.98, "Test accuracy below which the model is not accepted.")
    min_recall: Share = parameter(0.95, "Recall of the weakest class below which the model is not accepted.")
    min_behavior: Annotated[
        dict[str, Any],
        explained(_refuse_behavior),
        AfterValidator(_as_shares),
        Accepts(f"an object of numbers from 0 to 1 by {', '.join(BEHAVIOR[:-1])} or {BEHAVIOR[-1]}"),
    ] = parameter({}, 'Accuracy on changed test images below which the model is not accepted, such as {"noisy": 0.9}.')
    behavior_images: Annotated[int, Field(ge=0, le=MAX_BEHAVIOR_IMAGES)] = parameter(
        500, "Test images, drawn by a fixed seed, that are shifted, thinned, inverted, noisy and occluded; 0: none."
    )

    @model_validator(mode="after")
    def _check_behavior(self) -> Self:
        if self.min_behavior and not self.behavior_images:
            raise UserError(
                "min_behavior is given, and behavior_images=0 tests nothing", "give more behavior_images, or no gate"
            )
        return self


class EvaluateRecipe(Gates, Threads, StoreUri):
    """All that step evaluate needs to know."""


class ExportRecipe(EvaluateRecipe):
    """All that step export needs to know."""

    onnx_opset: Annotated[int, Field(ge=18, le=23)] = parameter(
        18, "Operator set of model.onnx; 18 runs in ONNX Runtime 1.14 and later, so in Triton 23.05 of KServe too."
    )
