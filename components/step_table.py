"""The steps of the graphs, in the order in which they run: what the runner, tests and documents must know of each.

No step imports this: a description is no part of the code that determines a step's result.
"""

from typing import NamedTuple


class Step(NamedTuple):
    """A step: its name in Kubeflow, its image, and what it makes of what."""

    name: str
    image: str
    line: str
    graph: str = ""  # the only graph that has it; empty if all have it
    trains: bool = False  # whether it runs with the CPUs, memory and GPUs for training

    @property
    def module(self) -> str:
        """The name of its module, and of its function and port."""
        return self.name.replace("-", "_")


STEPS = (
    Step("resolve", "data", "all parameters -> the recipe of each step; source URI -> the version of the data"),
    Step("download", "data", "source URI -> raw files, verified"),
    Step("preprocess", "data", "raw files -> prepared dataset"),
    Step("train", "torch", "prepared dataset -> model", graph="training", trains=True),
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
    Step("finish", "data", "how the run ended -> a record, whatever happened"),
)
STEP_LABEL = "app.kubernetes.io/component"  # of a step's pod: the step's name


def names_in(graph: str) -> tuple[str, ...]:
    """Return the names of the steps of a graph, in the order in which they run."""
    return tuple(step.name for step in STEPS if step.graph in ("", graph))
