"""The compiled pipeline: one YAML file, the same bytes for the same code."""

import os
import sys
import tempfile
from pathlib import Path

import yaml
from kfp.compiler import Compiler
from kfp.dsl.base_component import BaseComponent

from components.shared.images import is_pinned


def compile_pipeline(pipeline: BaseComponent, output: Path) -> Path:
    """Compile the pipeline to a YAML file that appears whole, and return its path."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        fresh = Path(folder) / output.name
        Compiler().compile(pipeline, str(fresh))
        os.replace(fresh, output)
    return output


def warn_of_tags(package: Path) -> None:
    """Say on stderr which images a compiled pipeline names by tags, as where the present code was not pushed."""
    executors = next(yaml.safe_load_all(package.read_text()))["deploymentSpec"]["executors"].values()
    tags = sorted({executor["container"]["image"] for executor in executors})
    for name in [tag for tag in tags if not is_pinned(tag)]:
        print(f"warning: image {name} has no known digest; `make push REGISTRY=...` pins it", file=sys.stderr)
