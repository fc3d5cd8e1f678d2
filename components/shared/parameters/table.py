"""The parameters of each graph, made of all recipes, and the rules about several of them."""

from typing import Annotated, Self

from pydantic import model_validator

from components.shared.core.errors import UserError
from components.shared.data.sources import schemes
from components.shared.models import catalogue
from components.shared.parameters.common import Parts
from components.shared.parameters.evaluation import ExportRecipe
from components.shared.parameters.pods import Pods, Secrets
from components.shared.parameters.prediction import PredictionRecipe
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe
from components.shared.parameters.recipe import Accepts, Recipe, fitting, parameter
from components.shared.parameters.registration import RegisterRecipe
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.training import TrainingRecipe

SWEEP = "sweep"  # the graph that searches for the best settings
DISTRIBUTED = "distributed"  # the graph that trains on several machines
BIGDATA = "bigdata"  # the graph whose data set no pod holds whole
PREDICTION = "prediction"  # the graph that predicts, the only one that does not train


class Source(Recipe):
    """Where the images come from."""

    data: Annotated[str, fitting(schemes.is_accepted), Accepts(schemes.accepted())] = parameter(
        "mnist", "mnist, fashion-mnist, kmnist, cifar10, digits, or a https://, s3:// or file:// URI."
    )


class Parameters(Pods, RegisterRecipe, ExportRecipe, TrainingRecipe, PreprocessRecipe, Source):
    """The parameters that all graphs that train have."""

    @model_validator(mode="after")
    def _check_image_size(self) -> Self:
        catalogue.check(self.network, self.image_size)
        return self

    @model_validator(mode="after")
    def _check_keep(self) -> Self:
        if self.keep == "jpeg" and self.data in schemes.DATA_SETS:
            message = f"keep=jpeg, but data={self.data} has pixels and no files of pictures"
            raise UserError(message, "give keep=raw")
        return self

    @model_validator(mode="after")
    def _check_deployment(self) -> Self:
        if self.deploy and not self.store:
            message = "deploy=true, but store= is empty, and KServe loads a model from the store"
            raise UserError(message, "give store=s3://bucket/prefix")
        if self.deploy and not self.keep_samples:
            message = "deploy=true, but keep_samples=false, and what is served is tested by the kept images"
            raise UserError(message, "omit one of the two")
        return self


class SweepParameters(SweepRecipe, Parameters):
    """The parameters of graph `sweep`."""


class BigDataParameters(Parts, Parameters):
    """The parameters of graph `bigdata`."""


class PredictionParameters(Secrets, PredictionRecipe, ReadingRecipe, Source):
    """The parameters of graph `prediction`."""


EXCHANGES = {DISTRIBUTED: "nodes", BIGDATA: "pods"}  # what works side by side, by the graph that needs a store
MODELS: dict[str, type[Recipe]] = {SWEEP: SweepParameters, BIGDATA: BigDataParameters, PREDICTION: PredictionParameters}


def model_of(graph: str) -> type[Recipe]:
    """Return the parameters of a graph."""
    return MODELS.get(graph, Parameters)


def check(graph: str, parameters: Recipe) -> None:
    """Raise UserError if parameters that are accepted each by itself do not suit the graph."""
    if isinstance(parameters, PredictionRecipe):
        parameters.check()
    if isinstance(parameters, Parameters):
        check_nodes(graph, parameters.nodes, parameters.store)


def check_nodes(graph: str, nodes: int, store: str) -> None:
    """Raise UserError if a graph cannot train on so many nodes."""
    if graph != DISTRIBUTED and nodes > 1:
        message = f"nodes={nodes} is more than graph {graph} trains on"
        raise UserError(message, f"give --graph {DISTRIBUTED}, or nodes=1")
    if graph in EXCHANGES and not store:
        message = f"store= is empty, but the {EXCHANGES[graph]} of graph {graph} exchange their data through it"
        raise UserError(message, "give store=s3://bucket/prefix")
