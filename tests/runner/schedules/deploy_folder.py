"""A folder with a deploy file, and the verb `apply` for it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.dsl.base_component import BaseComponent

from runner.schedules import apply
from tests.runner import verbs
from tests.runner.verbs import run_verb

NIGHTLY = {"when": "0 2 * * *"}


class DeployFolder:
    """Writes deploy.yaml and applies it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.capsys = path / "deploy.yaml", capsys

    def write(self, **keys: Any) -> None:
        self.file.write_text(yaml.safe_dump({"pipeline": "torch2kubeflow-training", **keys}))

    def apply(self, *words: str, code: BaseComponent = verbs.pipeline, **keys: Any) -> list[str]:
        """Apply the file and return the printed lines; those with details of an item begin with a space."""
        self.write(**keys)
        self.capsys.readouterr()
        assert run_verb(apply, "-f", str(self.file), *words, pipeline=code) == 0
        return self.capsys.readouterr().out.splitlines()

    def items(self, *words: str, **keys: Any) -> list[str]:
        """Apply the file and return the lines about recurring runs."""
        return [line for line in self.apply(*words, **keys)[1:] if not line.startswith(" ")]
