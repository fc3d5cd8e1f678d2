"""The estimated size of a run's object in Argo, against real runs of cd652ef, and what the present graphs need."""

import json
import lzma
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from components.shared.parameters.evaluation import EvaluateRecipe
from components.shared.parameters.preparation import PreprocessRecipe
from components.shared.parameters.recipe import Recipe
from components.shared.parameters.registration import RegisterRecipe
from components.shared.parameters.sweep import SweepRecipe
from components.shared.parameters.table import SweepParameters
from components.shared.parameters.training import TrainingRecipe
from components.shared.training.search.planned import plan
from runner.compile import compile_pipeline, read_package
from tests.conftest import ROOT
from tests.runner.cluster.run_size import LIMIT, estimate

FIXTURES = ROOT / "tests" / "fixtures" / "cd652ef"
RECORDED: dict[str, dict[str, int]] = json.loads((FIXTURES / "argo_sizes.json").read_text())
INPUTS = {"store": "s3://mlpipeline/team", "data": "digits"}
ALL_CACHED = ("download", "preprocess", "train", "evaluate", "export", "register")
TRIAL = 760 * "x"  # what a trial of cd652ef was planned by


def recorded_pipeline(name: str) -> list[Any]:
    with tarfile.open(fileobj=BytesIO(lzma.decompress((FIXTURES / "compiled.tar.xz").read_bytes()))) as tar:
        file = tar.extractfile(f"{name}.yaml")
        assert file
        return list(yaml.safe_load_all(file.read()))


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


def size_of(graph: str, tmp_path: Path, items: tuple[str, ...] = (), **inputs: Any) -> int:
    """The estimated bytes of a run of the present code in which every step runs."""
    package = compile_pipeline(getattr(pipeline, graph), tmp_path / "pipeline.yaml")
    values = SweepParameters.of(**INPUTS).values()
    recipes: dict[str, type[Recipe]] = {
        "preparation": PreprocessRecipe,
        "training": TrainingRecipe,
        "evaluation": EvaluateRecipe,
        "registration": RegisterRecipe,
    }
    texts = {name: recipe.taken_from(values).text() for name, recipe in recipes.items()}
    outputs = {f"resolve.{name}": text for name, text in texts.items()} | {"resolve.version": 64 * "v"}
    parts = estimate(read_package(package), {**INPUTS, **inputs}, outputs, items)
    return sum(part.nodes + part.spec for part in parts)


@pytest.mark.parametrize(("graph", "kilobytes"), [("training", 550), ("distributed", 600)])
def test_a_run_stays_far_from_argos_limit(tmp_path: Path, graph: str, kilobytes: int) -> None:
    assert size_of(graph, tmp_path) <= 1000 * kilobytes < LIMIT


def test_a_sweep_of_200_trials_stays_below_argos_limit(tmp_path: Path) -> None:
    settings = [{"learning_rate": round(0.0005 * number, 4)} for number in range(1, 201)]
    pods = plan(SweepRecipe.of(settings=settings), TrainingRecipe.of(store=INPUTS["store"]), 32)
    assert len(pods) == 4
    assert size_of("sweep", tmp_path, tuple(pod.text() for pod in pods), settings=settings) <= 900_000 < LIMIT
