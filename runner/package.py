"""The compiled pipeline: one YAML file, the same bytes for the same code."""

import os
import sys
import tempfile
from pathlib import Path

from kfp.compiler import Compiler
from kfp.dsl.base_component import BaseComponent

from components import steps
from components.shared.images import is_pinned


def compile_pipeline(pipeline: BaseComponent, output: Path) -> Path:
    """Compile the pipeline to a YAML file that appears whole, and return its path."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        fresh = Path(folder) / output.name
        Compiler().compile(pipeline, str(fresh))
        os.replace(fresh, output)
    return output


def warn_of_tags() -> None:
    """Say on stderr that images are named by tags, where the present code was not pushed."""
    if not is_pinned(steps.TORCH_IMAGE):
        print(f"warning: {steps.TORCH_IMAGE} has no known digest; `make push REGISTRY=...` pins it", file=sys.stderr)
