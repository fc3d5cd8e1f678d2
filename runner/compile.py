"""Verb `compile`: compile a pipeline to one YAML file, the same bytes for the same code."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.compiler import Compiler
from kfp.dsl.base_component import BaseComponent

from components.shared.container_images import is_pinned
from components.shared.core.document import Items
from components.shared.core.errors import UserError
from components.shared.core.printable import say
from runner.answer import Answer
from runner.graphs import graph_of
from runner.verbs.options import UNWRITABLE

BUILD = Path(__file__).parents[1] / "build"
FILES = {"training": "pipeline.yaml", "distributed": "pipeline-distributed.yaml"}  # by graph; else the graph's name


class CompileDocument(Answer):
    """The files that `compile` wrote."""

    FORMAT = "torch2kubeflow/compile"

    files: Items[str]


def handle(arguments: argparse.Namespace, *pipelines: BaseComponent) -> int:
    """Write pipelines to their own files, or the first to --output; return 0."""
    if arguments.output:
        _check_output(arguments.output)
        packages = [compile_pipeline(pipelines[0], arguments.output)]
    else:
        packages = [_compile_here(pipeline) for pipeline in pipelines]
    warn_of_tags([document for package in packages for document in read_package(package)])
    say(*packages)
    arguments.document = CompileDocument(files=[str(package) for package in packages])
    return 0


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise UserError(f"--output {output} is a folder", f"name a file, such as {output / 'pipeline.yaml'}")
    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"--output {output} is no YAML file", "give a name that ends in .yaml")


def _compile_here(pipeline: BaseComponent) -> Path:
    """Compile the pipeline to its own file. Raises UserError if the code is where nothing can be written."""
    try:
        return compile_pipeline(pipeline, package_of(pipeline))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        message = f"nothing can be written to {BUILD}"
        raise UserError(message, f"give --graph {graph_of(pipeline)} --output FILE.yaml") from None


def compile_pipeline(pipeline: BaseComponent, output: Path) -> Path:
    """Compile the pipeline to a YAML file, written in one step, and return its path."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        fresh = Path(folder) / output.name
        Compiler().compile(pipeline, str(fresh))
        os.replace(fresh, output)
    return output


def package_of(pipeline: BaseComponent) -> Path:
    """Return the file that a pipeline is compiled to by default."""
    graph = graph_of(pipeline)
    return BUILD / FILES.get(graph, f"{graph}.yaml")


def read_package(package: Path) -> list[Any]:
    """Return the documents of a compiled pipeline: KFP's own, and the settings for Kubernetes."""
    return documents_in(package.read_text())


def documents_in(text: str) -> list[Any]:
    """Return the documents of a compiled pipeline's text."""
    return list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def documents_of(pipeline: BaseComponent) -> list[Any]:
    """Return what `read_package` returns of a pipeline, without compiling it to a file."""
    return [json_format.MessageToDict(spec) for spec in (pipeline.pipeline_spec, pipeline.platform_spec)]


def warn_of_tags(documents: list[Any]) -> None:
    """Warn on stderr of images that a compiled pipeline names by tag: the present code was not pushed."""
    executors = [part for one in documents for part in one.get("deploymentSpec", {}).get("executors", {}).values()]
    tags = sorted({executor["container"]["image"] for executor in executors})
    for name in [tag for tag in tags if not is_pinned(tag)]:
        say(f"warning: image {name} has no known digest; `make push REGISTRY=...` pins it", file=sys.stderr)
