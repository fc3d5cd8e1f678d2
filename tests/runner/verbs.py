"""Verbs as `python pipeline.py` calls them, and a small pipeline with the steps' names to call them with."""

import argparse
from types import ModuleType

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.step_table import names_in
from runner.answer import Answer
from runner.verbs.parser import parse

IMAGE = f"torch2kubeflow/data@sha256:{'1' * 64}"


@dsl.component(base_image=IMAGE)
def resolve(data: str, epochs: int) -> str:
    return data


def _step(name: str) -> BaseComponent:
    """A step that does nothing."""

    def container():  # type: ignore[no-untyped-def]  # KFP would read an annotation
        return dsl.ContainerSpec(image=IMAGE, command=["true"])

    container.__name__ = name
    return dsl.container_component(container)


LATER = [_step(name) for name in names_in("training")[1:]]


@dsl.pipeline(name="torch2kubeflow-training", description="A small one.")
def pipeline(data: str = "mnist", epochs: int = 3, node_selector: dict[str, str] = {}) -> None:  # noqa: B006
    last = resolve(data=data, epochs=epochs)
    for step in LATER:
        last = step().after(last)


@dsl.pipeline(name="torch2kubeflow-training", description="Another one.")
def changed_pipeline(data: str = "mnist", batch_size: str = "32") -> None:
    resolve(data=batch_size, epochs=3)


def run_verb(verb: ModuleType, *words: str, pipeline: BaseComponent = pipeline) -> int:
    """The exit code of a verb, whose module is `runner.<folder>.<verb>`."""
    return int(_run(verb, parse([verb.__name__.rpartition(".")[2], *words]), pipeline))


def answered(verb: ModuleType, *words: str, pipeline: BaseComponent = pipeline) -> Answer:
    """The document that a verb prints with --json, as who reads its JSON finds it."""
    arguments = parse([verb.__name__.rpartition(".")[2], *words, "--json"])
    _run(verb, arguments, pipeline)
    document: Answer = arguments.document
    return type(document).parse(document.to_json(), "stdout")


def _run(verb: ModuleType, arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    return int(verb.handle(arguments, *([pipeline] if "graph" in arguments else [])))
