"""What a run reuses after a change of the code, with all graphs: pytest tests/runner/local/test_reuse.py"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SHARED = Path("components/shared")
REPORT = SHARED / "evaluation/report/templates/report.html"
AUGMENTATION = SHARED / "training/augmentation.py"
LOOP = SHARED / "training/loop.py"
COMMENT = "\n# Nothing that runs.\n"
CODE = "\nMORE = 1\n"
GRAPHS = {
    "training": ("train", ()),
    "sweep": ("trial", ('settings=[{"learning_rate": 0.01}, {"learning_rate": 0.04}]',)),
    "distributed": ("train-distributed", ("nodes=2",)),
}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the code, to change it between two runs."""
    folder = tmp_path / "checkout"
    for name in ("components", "runner", "docker"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pipeline.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(checkout: Path, graph: str, *words: str) -> dict[str, Any]:
    """Run a graph on the digits by the code of the checkout, and return its summary."""
    settings = ("data=digits", "epochs=1", "batch_size=64", "threads=1", "min_accuracy=0", "min_recall=0")
    command = [sys.executable, "pipeline.py", "local", "--graph", graph, *settings, *GRAPHS[graph][1], *words]
    done = subprocess.run(command, cwd=checkout, env=os.environ, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    summary: dict[str, Any] = json.loads((checkout / "runs/latest/summary.json").read_text())
    return summary


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {name: step["state"] for name, step in summary["steps"].items()}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_new_report_trains_nothing_and_registers_nothing(checkout: Path, graph: str) -> None:
    first = run(checkout, graph)
    append(checkout / REPORT, "<!-- more -->\n")
    append(checkout / LOOP, COMMENT)
    second = run(checkout, graph)
    assert states(second)["evaluate"] == "done"
    assert {states(second)[step] for step in ("download", "preprocess", GRAPHS[graph][0])} == {"cached"}
    assert second["registered"]["version"] == first["registered"]["version"] == 1


@pytest.mark.parametrize(
    ("graph", "path"), [("training", AUGMENTATION), ("sweep", AUGMENTATION), ("distributed", LOOP)]
)
def test_new_training_code_trains_again(checkout: Path, graph: str, path: Path) -> None:
    run(checkout, graph)
    append(checkout / path, CODE)
    second = states(run(checkout, graph))
    assert (second["preprocess"], second[GRAPHS[graph][0]]) == ("cached", "done")
    assert "epoch 1/1: 100 %" in (checkout / "runs/latest/kfp.log").read_text()


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_finished_training_is_found_in_the_store(checkout: Path, graph: str) -> None:
    run(checkout, graph)
    first = (checkout / "runs/latest/model/model.safetensors").read_bytes()
    append(checkout / SHARED / "evaluation/metrics.py", CODE)
    second = run(checkout, graph, "--no-cache")
    assert states(second)[GRAPHS[graph][0]] == "done"
    log = (checkout / "runs/latest/kfp.log").read_text()
    assert "epoch 1/1: 100 %" not in log, "nothing is trained again"
    assert (checkout / "runs/latest/model/model.safetensors").read_bytes() == first
    assert second["registered"]["version"] == 1
