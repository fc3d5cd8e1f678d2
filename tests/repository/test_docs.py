"""The README, held to what the code does."""

import argparse
import ast
import json
import re
import shlex
from pathlib import Path

import pytest

import pipeline
from components.shared.data.dataset import SPLITS
from components.step_table import STEPS
from runner import summary
from runner.graphs import steps_of
from runner.parameters import parse_parameters

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_make_command_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", README, re.M))
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("arguments", re.findall(r'make run ARGS="((?:\\"|[^"])*)"', README))
def test_every_run_of_the_readme_has_parameters_that_are_accepted(arguments: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graph", default="training")
    parser.add_argument("--no-cache", action="store_true")
    known, words = parser.parse_known_args(shlex.split(arguments.replace('\\"', '"')))
    parse_parameters(pipeline.GRAPHS[known.graph], words)


def test_the_accurate_settings_are_those_that_were_measured() -> None:
    (settings,) = re.findall(r"^ACCURATE.*?= (\{.*?^\})", (ROOT / "bench" / "training.py").read_text(), re.M | re.S)
    words = [f"{name}={value}" for name, value in ast.literal_eval(settings).items()]
    assert f'make run ARGS="{" ".join(words)}"' in README


def test_the_parameter_tables_are_the_signature_the_common_ones_and_those_of_a_sweep() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*?) \|$", README, re.M)
    inputs = pipeline.sweep.component_spec.inputs
    defaults = parse_parameters(pipeline.sweep, [])
    shown = {name: value or '""' if isinstance(value, str) else json.dumps(value) for name, value in defaults.items()}
    assert list(inputs)[: len(pipeline.training.component_spec.inputs)] == list(pipeline.training.component_spec.inputs)
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


def test_every_step_is_described_as_in_the_table_of_steps() -> None:
    for step in STEPS:
        assert re.search(rf"^  {step.module}\.py +{re.escape(step.line)}$", README, re.M), step.name


def test_every_field_of_the_summary_is_described(tmp_path: Path) -> None:
    document = summary.collect("", tmp_path, 0.0, "done", {}, {}, {}, None)
    section = README.split("## `summary.json`")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == set(document)
    for word in (*(step.name for step in STEPS), *SPLITS):
        assert word in README


def test_pictures_and_links_are_there() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)|<img[^>]*src=\"([^\"]+)\"", README)
    assert targets
    for target in (a or b for a, b in targets):
        assert (ROOT / target).exists(), target
    for step in steps_of(pipeline.training):
        assert f">{step}</text>" in (ROOT / "docs" / "pipeline.svg").read_text()
