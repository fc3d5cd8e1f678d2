"""The steps of the graphs, in the order in which they run: what the runner, tests and documents must know of each.

No step imports this: a description is no part of the code that determines a step's result.
"""

from typing import NamedTuple

BIGDATA = "bigdata"  # the graph whose data set no pod holds whole
PREDICTION = "prediction"  # the graph that does not train
# Which graphs have a step:
EVERY, TRAINS, TRAINS_ALONE = "all", "all that train", "training, bigdata"
HOLDS, HOLDS_AND_TRAINS = "all but bigdata", "all that train, but bigdata"
LACKING = {EVERY: (), TRAINS: (PREDICTION,), HOLDS: (BIGDATA,), HOLDS_AND_TRAINS: (BIGDATA, PREDICTION)}


class Step(NamedTuple):
    """A step: its name in Kubeflow, its image, and what it makes of what."""

    name: str
    image: str
    line: str
    graph: str = TRAINS  # the graphs that have it
    trains: bool = False  # whether it runs with the CPUs, memory and GPUs for training

    @property
    def port(self) -> str:
        """The name of its port, and of its function."""
        return self.name.replace("-", "_")

    @property
    def module(self) -> str:
        """The name of its module."""
        package = f"{self.graph}." if self.graph in (PREDICTION, BIGDATA) else ""
        return f"components.{package}{self.port}"

    def is_in(self, graph: str) -> bool:
        """Whether a graph has it."""
        if self.graph in LACKING:
            return graph not in LACKING[self.graph]
        return graph in self.graph.split(", ")


STEPS = (
    Step("resolve", "data", "all parameters -> the recipe of each step; source URI -> the version of the data"),
    Step(
        "resolve-prediction",
        "data",
        "all parameters -> the model, and what each pod predicts; source URI -> the version of the data",
        graph=PREDICTION,
    ),
    Step(
        "download", "data", "source URI -> raw files, verified; of a large source the list of its pictures", graph=HOLDS
    ),
    Step("preprocess", "data", "raw files, or a list of pictures -> prepared dataset", graph=HOLDS_AND_TRAINS),
    Step(
        "partition", "data", "source URI -> the list of its pictures, of which at most a sample is read", graph=BIGDATA
    ),
    Step("prepare", "data", "list of pictures -> a pod's part of the units of a dataset, in the store", graph=BIGDATA),
    Step("settle", "data", "units -> prepared dataset, whose shards stay in the store", graph=BIGDATA),
    Step("train", "torch", "prepared dataset -> model", graph=TRAINS_ALONE, trains=True),
    Step("trial", "torch", "prepared dataset and some settings -> a model for each", graph="sweep", trains=True),
    Step("compare", "torch", "models of all trials -> the best by validation accuracy, and a report", graph="sweep"),
    Step(
        "train-distributed",
        "torch",
        "prepared dataset -> model, by a TrainJob on many nodes",
        graph="distributed",
        trains=True,
    ),
    Step("evaluate", "torch", "model and test split -> metrics, report, verdict"),
    Step("export", "torch", "accepted model -> ONNX and torch.export programs, checked against it"),
    Step("register", "torch", "package -> a version in the store; the champion, if better on the same test split"),
    Step("predict", "serve", "raw files and a package -> a pod's share of the predictions", graph=PREDICTION),
    Step("collect", "serve", "shares -> the table of predictions, a page, metrics", graph=PREDICTION),
    Step("finish", "data", "how the run ended -> a record, whatever happened", graph=EVERY),
)
MODULES = {step.port: step.module for step in STEPS}
STEP_LABEL = "app.kubernetes.io/component"  # of a step's pod: the step's name


def names_in(graph: str) -> tuple[str, ...]:
    """Return the names of the steps of a graph, in the order in which they run."""
    return tuple(step.name for step in STEPS if step.is_in(graph))
