"""The parameters of graph `sweep` besides those that all graphs have.

Settings are objects, one for each trial, or, if all have the same parameters, columns, one for each parameter. Columns
have each name once, so that the settings of hundreds of trials fit into what Argo keeps of a run:

    [{"epochs": 5, "mixup": 0.2}, {"epochs": 9, "mixup": 0.1}]    [["epochs", 5, 9], ["mixup", 0.2, 0.1]]
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from components.shared.core.document import MAX_COUNT
from components.shared.parameters.recipe import Accepts, Recipe, parameter

SETTINGS = "settings"
Stopping = Literal["none", "asha"]
LEARNING_RATES = ({"learning_rate": 0.01}, {"learning_rate": 0.02}, {"learning_rate": 0.04})


class SweepRecipe(Recipe):
    """The trials of a sweep, and when one is stopped."""

    settings: Annotated[
        list[dict[str, Any]],
        Accepts('a list such as [{"learning_rate": 0.01}, {"learning_rate": 0.03}] or [["learning_rate", 0.01, 0.03]]'),
    ] = parameter(
        list(LEARNING_RATES),
        "One object for each trial, with the parameters that differ in it; or one list for each, with name and values.",
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

    @field_validator("settings", mode="before")
    @classmethod
    def _objects(cls, value: Any) -> Any:
        return as_objects(value)


def as_objects(settings: Any) -> Any:
    """Return settings as objects if they are columns, else as they are."""
    if not isinstance(settings, list) or not all(isinstance(column, list) and column for column in settings):
        return settings
    names = [column[0] for column in settings]
    is_table = all(isinstance(name, str) for name in names) and len({len(column) for column in settings}) == 1
    if not is_table or len(set(names)) < len(names):
        return settings
    rows = zip(*(column[1:] for column in settings), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def as_columns(settings: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return settings as columns if that is possible and not longer, else as they are."""
    names = sorted({name for one in settings for name in one})
    if not names or any(one.keys() != set(names) for one in settings):
        return [*settings]
    columns = [[name, *(one[name] for one in settings)] for name in names]
    return columns if len(json.dumps(columns)) <= len(json.dumps(settings)) else [*settings]
