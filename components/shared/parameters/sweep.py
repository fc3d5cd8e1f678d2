"""The parameters of graph `sweep` besides those that all graphs have."""

from typing import Annotated, Any, Literal

from pydantic import Field

from components.shared.core.document import MAX_COUNT
from components.shared.parameters.recipe import Accepts, Recipe, parameter

Stopping = Literal["none", "asha"]
LEARNING_RATES = ({"learning_rate": 0.01}, {"learning_rate": 0.02}, {"learning_rate": 0.04})


class SweepRecipe(Recipe):
    """The trials of a sweep, and when one is stopped."""

    settings: Annotated[
        list[dict[str, Any]],
        Accepts('a list of objects such as [{"learning_rate": 0.01}, {"learning_rate": 0.03}]'),
    ] = parameter(
        list(LEARNING_RATES), "One object for each trial, with the parameters of the training that differ in it."
    )
    stopping: Stopping = parameter(
        "none", "none, or asha, which stops a trial that has fallen behind the others; it needs a store."
    )
    parallel: Annotated[int, Field(ge=1, le=100)] = parameter(
        4, "Number of pods that the trials are dealt to; each does its trials in turn."
    )
    reduction: Annotated[int, Field(ge=2, le=100)] = parameter(
        3, "With asha, 1 in this many trials continues at a rung; the next is after this many times the epochs."
    )
    first_rung: Annotated[int, Field(ge=1, le=MAX_COUNT)] = parameter(
        1, "With asha, the number of epochs after which trials are first compared."
    )
