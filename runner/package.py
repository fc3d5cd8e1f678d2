"""The compiled pipeline: one YAML file, the same bytes for the same code."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from kfp.compiler import Compiler
from kfp.dsl.base_component import BaseComponent

from components.shared.images import is_pinned

PACKAGE = Path(__file__).parents[1] / "build" / "pipeline.yaml"


def compile_pipeline(pipeline: BaseComponent, output: Path) -> Path:
    """Compile the pipeline to a YAML file that appears whole, and return its path."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        fresh = Path(folder) / output.name
        Compiler().compile(pipeline, str(fresh))
        os.replace(fresh, output)
    return output


def read_package(package: Path) -> list[Any]:
    """The documents of a compiled pipeline: the pipeline, and what is Kubernetes' alone."""
    return list(yaml.safe_load_all(package.read_text()))


def warn_of_tags(documents: list[Any]) -> None:
    """Say on stderr which images a compiled pipeline names by tags, as where the present code was not pushed."""
    executors = documents[0]["deploymentSpec"]["executors"].values()
    tags = sorted({executor["container"]["image"] for executor in executors})
    for name in [tag for tag in tags if not is_pinned(tag)]:
        print(f"warning: image {name} has no known digest; `make push REGISTRY=...` pins it", file=sys.stderr)
