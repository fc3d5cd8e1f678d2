"""The transitions of a run, against a real run of cd652ef, and those of the present graphs, as documented."""

import re
from pathlib import Path
from typing import Any

import pytest

import pipeline
from components.shared.parameters.table import BIGDATA, PREDICTION
from runner.compile import FILES, compile_pipeline, read_package
from tests.repository.documents import read
from tests.runner.cluster.transitions import transitions
from tests.runner.test_run_size import recorded_pipeline

SECTION = read("docs/cluster.md").partition("## Time of a run")[2].partition("\n## ")[0]


def present_pipeline(graph: str, folder: Path) -> Any:
    return read_package(compile_pipeline(pipeline.GRAPHS[graph], folder / "pipeline.yaml"))[0]


def test_a_recorded_run_with_all_cached_took_13_transitions() -> None:
    assert transitions(recorded_pipeline("pipeline")[0], is_cached=True) == 13, "130 s at 10 s each"


def test_a_run_that_has_nothing_to_do_takes_12_transitions(tmp_path: Path) -> None:
    assert transitions(present_pipeline("training", tmp_path), is_cached=True) <= 12


@pytest.mark.parametrize("graph", pipeline.GRAPHS)
def test_the_documented_transitions_are_those_of_the_graphs(graph: str, tmp_path: Path) -> None:
    is_new = graph in (BIGDATA, PREDICTION)  # cd652ef did not have it
    before = None if is_new else recorded_pipeline(FILES.get(graph, f"{graph}.yaml").removesuffix(".yaml"))[0]
    now = present_pipeline(graph, tmp_path)
    found = [one and transitions(one, is_cached) for is_cached in (True, False) for one in (before, now)]
    (row,) = re.findall(rf"^\| {graph} \|(.*)\|$", SECTION, re.M)
    assert [None if cell.strip() == "-" else int(cell) for cell in row.split("|")] == found
