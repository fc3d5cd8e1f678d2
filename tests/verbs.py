"""Verbs as `python pipeline.py` calls them, and a small pipeline with the steps' names to call them with."""

import argparse
from types import ModuleType

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

IMAGE = f"torch2kubeflow/data@sha256:{'1' * 64}"


@dsl.component(base_image=IMAGE)
def resolve(data: str, epochs: int) -> str:
    return data


@dsl.pipeline(name="torch2kubeflow-training", description="A small one.")
def pipeline(data: str = "mnist", epochs: int = 3, node_selector: dict[str, str] = {}) -> None:  # noqa: B006
    resolve(data=data, epochs=epochs)


@dsl.pipeline(name="torch2kubeflow-training", description="Another one.")
def changed_pipeline(data: str = "mnist", batch_size: int = 32) -> None:
    resolve(data=data, epochs=batch_size)


def run_verb(verb: ModuleType, *words: str, pipeline: BaseComponent = pipeline) -> int:
    """The exit code of a verb, whose module is `runner.<verb>`."""
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    arguments = parser.parse_args([verb.__name__.rpartition(".")[2], *words])
    return int(arguments.handle(arguments, pipeline))
