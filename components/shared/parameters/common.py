"""Parameters that several steps share."""

from typing import Annotated

from pydantic import Field

from components.shared.core.errors import UserError
from components.shared.parameters.recipe import Accepts, Recipe, fitting, matching, parameter
from components.shared.storage.endpoint import parse_uri


def is_s3_uri(value: str) -> bool:
    """Return whether a text is s3://bucket or s3://bucket/prefix."""
    try:
        parse_uri(value)
    except UserError:
        return False
    return True


class Seed(Recipe):
    """What random numbers start from."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = parameter(
        0, "Seed of the split, the initial weights, the order of the images and the augmentation."
    )


class Threads(Recipe):
    """The CPUs that a step uses."""

    threads: Annotated[int, Field(ge=0, le=1024)] = parameter(
        0,
        "CPU threads of PyTorch or ONNX Runtime; 0 takes what the CPU quota allows. In a training the number slightly "
        "changes the weights.",
    )


class ModelName(Recipe):
    """The name of a model in the store."""

    model_name: Annotated[
        str,
        matching(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?"),
        Accepts("lower-case letters, digits and -, at most 63"),
    ] = parameter(
        "",
        "Name of the model in the store. A training registers an accepted model under it, empty under the data set's "
        "name; a prediction is made by it, empty by the only model.",
    )


class StoreUri(Recipe):
    """Where things go that outlive a run."""

    store: Annotated[
        str, fitting(lambda value: not value or is_s3_uri(value)), Accepts("s3://bucket or s3://bucket/prefix")
    ] = parameter(
        "",
        "s3://bucket/prefix for what outlives a run: prepared data, checkpoints, models, predictions; empty stores "
        "nothing.",
    )


class Parts(Recipe):
    """How many pods share the pictures."""

    parts: Annotated[int, Field(ge=1, le=200)] = parameter(
        1, "Number of pods that predict, or prepare the data of graph bigdata, side by side."
    )


class PartRecipe(Parts):
    """Which of them a pod is."""

    part: Annotated[int, Field(ge=0)] = 0
