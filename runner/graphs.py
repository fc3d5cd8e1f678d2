"""The pipelines that `--graph` names, and the steps of each."""

import argparse
from collections.abc import Iterator, Mapping

from kfp.dsl.base_component import BaseComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import ComponentSpec, PipelineSpec

from components.shared.core.errors import UserError
from runner.kfp_patches import run_order

PREFIX = "torch2kubeflow-"  # of a pipeline's name in Kubeflow, before that of its graph
DEFAULT = "training"


def add_graph_option(parser: argparse.ArgumentParser, default: str | None = DEFAULT) -> None:
    """Add to a verb the option that `choose` reads."""
    says = "the pipeline: training, sweep or another of pipeline.py"
    parser.add_argument("--graph", default=default, metavar="NAME", help=f"{says} ({default or 'else all'})")


def choose(graphs: Mapping[str, BaseComponent], name: str) -> BaseComponent:
    """The pipeline of that name; UserError where there is none."""
    if name not in graphs:
        raise UserError(f"--graph {name} is none of ours; give {' or '.join(graphs)}")
    return graphs[name]


def graph_of(pipeline: BaseComponent) -> str:
    """What `--graph` calls a pipeline."""
    return str(pipeline.name).removeprefix(PREFIX)


def steps_of(pipeline: BaseComponent) -> tuple[str, ...]:
    """The names of a pipeline's steps, each once, in the order of the run."""
    spec = pipeline.pipeline_spec
    return tuple(_walk(spec, spec.root))


def _walk(spec: PipelineSpec, group: ComponentSpec) -> Iterator[str]:
    for name in run_order(group.dag.tasks):
        component = spec.components[group.dag.tasks[name].component_ref.name]
        if component.HasField("dag"):
            yield from _walk(spec, component)
        else:
            yield name
