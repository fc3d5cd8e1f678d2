"""The parameters of the graph `prediction`."""

from typing import Annotated

from pydantic import Field

from components.shared.core.errors import UserError
from components.shared.data.sources import schemes
from components.shared.parameters.common import ModelName, Parts, StoreUri, Threads
from components.shared.parameters.recipe import Accepts, Recipe, fitting, matching, parameter

CHAMPION, VERSIONS = "champion", "versions/"


class Predicting(Parts):
    """Which model predicts, and in how many pods."""

    model: Annotated[
        str,
        matching(rf"{CHAMPION}|{VERSIONS}[1-9]\d{{0,8}}|(s3|file)://\S+"),
        Accepts(f"{CHAMPION}, {VERSIONS}N, or the s3:// or file:// URI of a package's folder"),
    ] = parameter(
        CHAMPION,
        "What predicts: champion (the one at the start of the run), a version such as versions/7, or the s3:// or "
        "file:// URI of a package's folder.",
    )


class Drift(Recipe):
    """When pictures differ too much from those that the model was evaluated on, and what follows."""

    drift_threshold: Annotated[float, Field(ge=0, le=1_000_000)] = parameter(
        0.2, "Population stability index above which a difference from the model's test images is drift."
    )
    retrain: bool = parameter(
        True,
        "Whether drift starts a training run of the model: on retrain_data, or on the pictures if all have a label.",
    )
    retrain_data: Annotated[
        str, fitting(lambda value: not value or schemes.is_accepted(value)), Accepts(schemes.accepted())
    ] = parameter("", "What to train on after drift, as data names it; empty takes the pictures if all have a label.")
    retrain_cooldown: Annotated[float, Field(ge=0, le=8760)] = parameter(
        24.0, "Hours that lie at least between two training runs of a model that drift starts."
    )


class PredictionRecipe(Drift, Predicting, ModelName, Threads, StoreUri):
    """All that step resolve-prediction needs to know of the model, the pods and the drift."""

    def check(self) -> None:
        """Raise UserError if the model is one of a store, and there is no store."""
        if "://" not in self.model and not self.store:
            message = f"model={self.model} is a model of the store, and store= is empty"
            raise UserError(message, "give store=s3://bucket/prefix, or as model= the URI of a package's folder")
