"""The graphs, which are the pipelines that `--graph` names, and the steps of each."""

from collections.abc import Iterator

from kfp.dsl.base_component import BaseComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import ComponentSpec, PipelineSpec

from runner.kfp_patches import run_order

PREFIX = "torch2kubeflow-"  # before the name of a graph: the pipeline's name in Kubeflow


def graph_of(pipeline: BaseComponent) -> str:
    """Return the name of a pipeline for `--graph`."""
    return str(pipeline.name).removeprefix(PREFIX)


def steps_of(pipeline: BaseComponent) -> tuple[str, ...]:
    """Return the names of a pipeline's steps, each once, in the order of the run."""
    spec = pipeline.pipeline_spec
    return tuple(_walk(spec, spec.root))


def _walk(spec: PipelineSpec, group: ComponentSpec) -> Iterator[str]:
    for name in run_order(group.dag.tasks):
        component = spec.components[group.dag.tasks[name].component_ref.name]
        if component.HasField("dag"):
            yield from _walk(spec, component)
        else:
            yield name
