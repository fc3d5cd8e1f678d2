"""The estimated size of a run's object in Argo, against real runs of cd652ef, and what the present graphs need."""

import json
import lzma
import re
import tarfile
from io import BytesIO
from typing import Any

import pytest

import pipeline
from runner.compile import documents_in
from runner.parameters import parse_parameters
from runner.run_size import LIMIT, Part, estimate, parts_of_run, total
from tests.conftest import ROOT
from tests.repository.documents import read

FIXTURES = ROOT / "tests" / "fixtures" / "cd652ef"
RECORDED: dict[str, dict[str, int]] = json.loads((FIXTURES / "argo_sizes.json").read_text())
INPUTS = {"store": "s3://mlpipeline/team", "data": "digits"}
ALL_CACHED = ("download", "preprocess", "train", "evaluate", "export", "register")
TRIAL = 760 * "x"  # what a trial of cd652ef was planned by
SECTION = read("docs/cluster.md").partition("## Size of a run")[2].partition("\n## ")[0]
PARTS = {  # of a training, as docs/cluster.md calls them
    "run": "the run itself, with its parameters",
    "exit-handler-1": "the group inside the exit handler",
}


def recorded_pipeline(name: str) -> list[Any]:
    with tarfile.open(fileobj=BytesIO(lzma.decompress((FIXTURES / "compiled.tar.xz").read_bytes()))) as tar:
        file = tar.extractfile(f"{name}.yaml")
        assert file
        return documents_in(file.read().decode())


@pytest.mark.parametrize(
    ("run", "name", "trials", "cached"),
    [
        ("distributed, nothing cached", "pipeline-distributed", 0, ()),
        ("training, download and preprocess cached", "pipeline", 0, ("download", "preprocess")),
        ("training, all cached but resolve and finish", "pipeline", 0, ALL_CACHED),
        ("sweep of 3 trials", "sweep", 3, ()),
        ("sweep of 12 trials", "sweep", 12, ()),
    ],
)
def test_the_estimate_agrees_with_a_real_run(run: str, name: str, trials: int, cached: tuple[str, ...]) -> None:
    parts = estimate(recorded_pipeline(name), INPUTS, {}, trials * [TRIAL], cached)
    assert sum(part.nodes for part in parts) == pytest.approx(RECORDED[run]["nodes_bytes"], rel=0.1)
    assert sum(part.spec for part in parts) == pytest.approx(RECORDED[run]["spec_bytes"], rel=0.1)
    assert sum(map(sum, (part[1:] for part in parts))) == pytest.approx(sum(RECORDED[run].values()), rel=0.05)


def parts_of(graph: str, trials: int = 0, pods: int = 0) -> list[Part]:
    """The estimated parts of a run of the present code; a sweep is one on 4 pods, a prediction one on `pods`."""
    settings = [{"learning_rate": round(0.0005 * number, 4)} for number in range(1, trials + 1)]
    words = [f"{name}={value}" for name, value in INPUTS.items()]
    words += [f"settings={json.dumps(settings)}"] if settings else []
    words += [f"parts={pods}"] if pods else []
    return parts_of_run(pipeline.GRAPHS[graph], parse_parameters(pipeline.GRAPHS[graph], words))


@pytest.mark.parametrize(
    ("graph", "trials", "kilobytes"), [("training", 0, 530), ("distributed", 0, 550), ("sweep", 200, 800)]
)
def test_a_run_stays_far_from_argos_limit(graph: str, trials: int, kilobytes: int) -> None:
    assert total(parts_of(graph, trials)) <= 1000 * kilobytes < LIMIT


@pytest.mark.slow
def test_the_documented_sizes_are_those_of_the_estimate() -> None:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.*\|$", SECTION, re.M)]
    documented = {name: int(now) for name, _before, now in rows if now.isdigit()}
    runs = {"training": parts_of("training"), "distributed": parts_of("distributed")}
    for trials in (3, 24, 200):
        name = f"sweep of {trials} trials on 4 pods" if trials > 3 else "sweep of 3 trials"
        runs[name] = parts_of("sweep", trials)
    for pods in (1, 10, 200):
        runs[f"prediction by {pods} {'pods' if pods > 1 else 'pod'}"] = parts_of("prediction", pods=pods)
    for pods in (1, 10):
        runs[f"data prepared by {pods} {'pods' if pods > 1 else 'pod'}"] = parts_of("bigdata", pods=pods)
    found = {name: total(parts) for name, parts in runs.items()}
    found |= {PARTS.get(part.name, part.name): part.nodes + part.spec for part in runs["training"]}
    assert documented.keys() == found.keys()
    for name, size in found.items():
        assert documented[name] == pytest.approx(size / 1000, abs=2), name
