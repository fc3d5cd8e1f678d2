"""The compiled pipeline: one YAML file, the same bytes for the same code."""

import os
import tempfile
from pathlib import Path

from kfp.compiler import Compiler
from kfp.dsl.base_component import BaseComponent


def compile_pipeline(pipeline: BaseComponent, output: Path) -> Path:
    """Compile the pipeline to a YAML file that appears whole, and return its path."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        fresh = Path(folder) / output.name
        Compiler().compile(pipeline, str(fresh))
        os.replace(fresh, output)
    return output
