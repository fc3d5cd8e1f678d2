"""The documentation, compared with the code."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

import pipeline
from components.shared.data.dataset import SPLITS
from components.shared.parameters import form
from components.shared.parameters.evaluation import Gates
from components.shared.parameters.help import FIELDS
from components.shared.parameters.pods import Pods
from components.shared.parameters.preparation import Preparation
from components.shared.parameters.registration import Registration
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.table import model_of
from components.shared.parameters.training import Settings
from components.step_table import STEPS
from docs.generate import generated
from runner.graphs import steps_of
from runner.parameters import parse_inputs
from runner.summary import SummaryDocument
from tests.repository.documents import DOCUMENTS, ROOT, anchors, links, paths, read, relative

MAX_README_LINES = 140


GENERATED = generated()


@pytest.mark.parametrize("path", GENERATED, ids=relative)
def test_generated_documents_are_current(path: Path) -> None:
    assert path.read_text() == GENERATED[path], "run `make docs`"


def test_every_parameter_is_documented_once_in_the_order_of_code() -> None:
    groups = [re.findall(r"^\| `(\w+)` \| `", part, re.M) for part in read("docs/parameters.md").split("\n## ")]
    assert sorted(name for group in groups for name in group) == sorted(FIELDS)
    for recipe in (Settings, Preparation, Gates, Registration, Pods, SweepRecipe):
        (group,) = [group for group in groups if set(recipe.model_fields) <= set(group)]
        assert [name for name in group if name in recipe.model_fields] == list(recipe.model_fields)


@pytest.mark.parametrize("graph", pipeline.GRAPHS)
def test_documents_mark_the_inputs_of_a_pipeline(graph: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `.*\| ([^|]+) \|$", read("docs/parameters.md"), re.M)
    inputs = {name for name, place in rows if place == "input" or f"input of `{graph}`" in place}
    assert inputs & model_of(graph).model_fields.keys() == set(form.inputs_of(graph))
    assert {*form.inputs_of(graph), form.OPTIONS} == set(pipeline.GRAPHS[graph].component_spec.inputs)


def test_examples_of_options_are_accepted() -> None:
    section = read("docs/parameters.md").split("## Inputs and options")[1].split("\n## ")[0]
    (shown,) = re.findall(r"in the field `options`: `(\{.*\})`", section)
    (sdk,) = re.findall(r"run_from_pipeline_package\(file, (\{.*\})\)`", section)
    (deployed,) = re.findall(r"`parameters: (\{.*\})`", section)
    (words,) = re.findall(r"^\| command line \| [\w ]+: `(.*)`", section, re.M)
    options = json.loads(shown)
    assert json.loads(sdk) == {form.OPTIONS: options} and yaml.safe_load(deployed) == options
    assert parse_inputs(pipeline.training, words.split()) == {form.OPTIONS: options}
    assert form.merge_options("training", {}, options).values()["optimizer"] == options["optimizer"]


def test_accurate_settings_are_those_that_were_measured() -> None:
    (settings,) = re.findall(r"^ACCURATE.*?= (\{.*?^\})", read("bench/training.py"), re.M | re.S)
    words = " ".join(f"{name}={value}" for name, value in ast.literal_eval(settings).items())
    for document in ("docs/training.md", "docs/benchmarks.md"):
        assert f'make run ARGS="{words}"' in read(document)


@pytest.mark.parametrize("document", ["README.md", "docs/architecture.md"])
def test_trees_name_existing_files(document: str) -> None:
    (tree,) = re.findall(r"```\n(pipeline\.py .*?)```", read(document), re.S)
    folders: list[str] = []
    for indent, entry in re.findall(r"^( *)((?:[\w-]+(?:\.py|/|file)\w* ?)+)", tree, re.M):
        depth = len(indent) // 2
        if depth > 4:
            continue
        for name in entry.split():
            path = "/".join([*folders[:depth], name.rstrip("/")])
            assert (ROOT / path).exists(), path
            if name.endswith("/"):
                folders[depth:] = [name.rstrip("/")]


def test_every_field_of_the_summary_is_described() -> None:
    text = read("docs/summary.md")
    section = text.split("## `summary.json`")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == {"format", *SummaryDocument.model_fields}
    for word in (*(step.name for step in STEPS), *SPLITS):
        assert word in section


def test_images_of_the_steps_are_those_of_the_cluster_page() -> None:
    found = re.findall(r"^\| `(data|serve|torch)`.*? \| ([\w, -]+) \|", read("docs/cluster.md"), re.M)
    described = {(step, image) for image, names in found for step in names.split(", ")}
    assert described == {(step.name, step.image) for step in STEPS}


def test_picture_of_the_pipeline_has_every_step_of_a_training() -> None:
    for step in steps_of(pipeline.training):
        assert f">{step}</text>" in read("docs/pipeline.svg")


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(document: Path) -> None:
    for path, anchor in links(document.read_text()):
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text()), f"{path}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_named_files_exist(document: Path) -> None:
    assert [path for path in sorted(paths(document.read_text())) if not (ROOT / path).exists()] == []


def test_every_document_is_linked() -> None:
    linked = {(document.parent / path).resolve() for document in DOCUMENTS for path, _ in links(document.read_text())}
    assert {path.name for path in (ROOT / "docs").glob("*.md") if path not in linked} == set()


def test_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= MAX_README_LINES
