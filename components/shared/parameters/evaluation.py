"""The parameters of the steps evaluate and export, which come to the same verdict about a model."""

from typing import Annotated

from pydantic import Field

from components.shared.parameters.common import StoreUri, Threads
from components.shared.parameters.recipe import Recipe, parameter

Share = Annotated[float, Field(ge=0, le=1)]


class Gates(Recipe):
    """What a model must reach to be accepted."""

    min_accuracy: Share = parameter(0.98, "Test accuracy below which the model is not accepted.")
    min_recall: Share = parameter(0.95, "Recall of the weakest class below which the model is not accepted.")


class EvaluateRecipe(Gates, Threads, StoreUri):
    """All that step evaluate needs to know."""


class ExportRecipe(EvaluateRecipe):
    """All that step export needs to know."""

    onnx_opset: Annotated[int, Field(ge=18, le=23)] = parameter(
        18, "Operator set of model.onnx; 18 runs in ONNX Runtime 1.14 and later, so in Triton 23.05 of KServe too."
    )
