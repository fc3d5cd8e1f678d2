"""The parameters of a pipeline: all of its recipes, and which of them are inputs of their own.

KFP's form shows a pipeline's inputs in alphabetical order and nothing grouped, so only those that people set and those
that Kubernetes needs have one; the others are members of the input `options`. For people every name is flat.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import model_validator

from components.shared.core.errors import UserError
from components.shared.data.sources import schemes
from components.shared.models import catalogue
from components.shared.parameters.evaluation import EvaluateRecipe
from components.shared.parameters.pods import Pods
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.recipe import Accepts, Recipe, fitting, parameter, unknown
from components.shared.parameters.registration import RegisterRecipe
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.training import TrainingRecipe

SWEEP = "sweep"  # the graph that searches for the best settings
DISTRIBUTED = "distributed"  # the graph that trains on several machines
OPTIONS = "options"
INPUTS = (
    "data",
    "store",
    "network",
    "image_size",
    "epochs",
    "batch_size",
    "learning_rate",
    "seed",
    "min_accuracy",
    "min_recall",
    "model_name",
    "gpus",
    "gpu_resource",
    "train_cpu",
    "train_memory",
    "node_selector",
    "tolerations",
    "s3_secret",
    "s3_config",
    "source_secret",
)
OWN_INPUTS = {SWEEP: ("settings",), DISTRIBUTED: ("nodes",)}  # of one graph


class Source(Recipe):
    """Where the images come from."""

    data: Annotated[str, fitting(schemes.is_accepted), Accepts(schemes.accepted())] = parameter(
        "mnist", "mnist, fashion-mnist, kmnist, cifar10, digits, or a https://, s3:// or file:// URI."
    )


class Parameters(Pods, RegisterRecipe, EvaluateRecipe, TrainingRecipe, PreprocessRecipe, Source):
    """The parameters that all graphs have."""

    @model_validator(mode="after")
    def _check_image_size(self) -> Self:
        catalogue.check(self.network, self.image_size)
        return self


class SweepParameters(SweepRecipe, Parameters):
    """The parameters of graph `sweep`."""


def model_of(graph: str) -> type[Parameters]:
    """Return the parameters of a graph."""
    return SweepParameters if graph == SWEEP else Parameters


def inputs_of(graph: str) -> tuple[str, ...]:
    """Return the inputs of a graph, without `options`."""
    return INPUTS + OWN_INPUTS.get(graph, ())


def merge_options(graph: str, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Parameters:
    """Return the parameters of a run of a graph from its inputs and options.

    Raises UserError for the first that is unknown, given twice or not accepted.
    """
    for name in options:
        if name in inputs:
            raise UserError(f"options has {name}, which is an input of its own", f"give it as {name}=...")
        if name not in model_of(graph).model_fields:
            refused = unknown(name, [name for name in model_of(graph).model_fields if name not in inputs])
            raise UserError(f"options: {refused.message}", refused.remedy)
    parameters = model_of(graph).of(**inputs, **options)
    check_nodes(graph, parameters.nodes, parameters.store)
    return parameters


def check_nodes(graph: str, nodes: int, store: str) -> None:
    """Raise UserError if a graph cannot train on so many nodes."""
    if graph != DISTRIBUTED and nodes > 1:
        message = f"nodes={nodes} is more than graph {graph} trains on"
        raise UserError(message, f"give --graph {DISTRIBUTED}, or nodes=1")
    if graph == DISTRIBUTED and not store:
        message = f"store= is empty, but the nodes of graph {DISTRIBUTED} exchange data and model through it"
        raise UserError(message, "give store=s3://bucket/prefix")
