"""The documentation, compared with the code."""

import ast
import re
from pathlib import Path

import pytest

import pipeline
from components.shared.data.dataset import SPLITS
from components.step_table import STEPS
from docs.generate import generated
from runner import summary
from runner.graphs import steps_of
from tests.repository.documents import DOCUMENTS, ROOT, anchors, links, paths, read, relative

MAX_README_LINES = 140


@pytest.mark.parametrize("path", generated(), ids=relative)
def test_generated_documents_are_current(path: Path) -> None:
    assert path.read_text() == generated()[path], "run `make docs`"


def test_parameters_are_in_the_order_of_the_pipeline() -> None:
    names = re.findall(r"^\| `(\w+)` \| `", read("docs/parameters.md"), re.M)
    assert names == list(pipeline.sweep.component_spec.inputs)


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


def test_every_field_of_the_summary_is_described(tmp_path: Path) -> None:
    document = summary.collect("", tmp_path, 0.0, "done", {}, {}, {}, None)
    text = read("docs/summary.md")
    section = text.split("## `summary.json`")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == set(document)
    for word in (*(step.name for step in STEPS), *SPLITS):
        assert word in section


def test_images_of_the_steps_are_those_of_the_cluster_page() -> None:
    found = re.findall(r"^\| `(data|torch)`.*? \| ([\w, -]+) \|", read("docs/cluster.md"), re.M)
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
