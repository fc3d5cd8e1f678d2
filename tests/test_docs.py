"""The README, held to what the code does."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import pipeline
from components.shared.dataset import SPLITS
from runner import summary
from runner.local import STEPS
from runner.parameters import parse_parameters

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_make_command_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", README, re.M))
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("arguments", re.findall(r'make run ARGS="([^"]*)"', README))
def test_every_run_of_the_readme_has_parameters_that_are_accepted(arguments: str) -> None:
    parse_parameters(pipeline.training, [word for word in shlex.split(arguments) if word != "--no-cache"])


def test_the_accurate_settings_are_those_that_were_measured() -> None:
    (settings,) = re.findall(r"^ACCURATE.*?= (\{.*?^\})", (ROOT / "bench" / "training.py").read_text(), re.M | re.S)
    words = [f"{name}={value}" for name, value in ast.literal_eval(settings).items()]
    assert f'make run ARGS="{" ".join(words)}"' in README


def test_the_parameter_table_is_the_signature() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*?) \|$", README, re.M)
    inputs = pipeline.training.component_spec.inputs
    defaults = parse_parameters(pipeline.training, [])
    shown = {
        name: str(value).lower() if isinstance(value, bool) else str(value) or '""' for name, value in defaults.items()
    }
    assert rows == [(name, shown[name], spec.description) for name, spec in inputs.items()]


def test_the_tree_names_what_is_there() -> None:
    (tree,) = re.findall(r"```\n(pipeline\.py .*?)```", README, re.S)
    names = [line.split()[0] for line in tree.splitlines() if not line.startswith(" ")]
    for name in names:
        assert (ROOT / name).exists(), name
    parent = ""
    for folder, name in re.findall(r"^(\w+)/ .*$|^  (\S+)", tree, re.M):
        parent = folder or parent
        assert (ROOT / parent / name).exists(), f"{parent}/{name}"


def test_every_field_of_the_summary_is_described(tmp_path: Path) -> None:
    document = summary.collect(tmp_path, 0.0, "done", {}, {}, {}, None)
    section = README.split("## `summary.json`")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == set(document)
    for word in (*STEPS, *SPLITS):
        assert word in README


def test_pictures_and_links_are_there() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)|<img[^>]*src=\"([^\"]+)\"", README)
    assert targets
    for target in (a or b for a, b in targets):
        assert (ROOT / target).exists(), target
    for step in STEPS:
        assert f">{step}</text>" in (ROOT / "docs" / "pipeline.svg").read_text()
