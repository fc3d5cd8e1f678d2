"""What a run reuses after a change of the code, with all graphs: pytest tests/runner/local/test_reuse.py"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SHARED = Path("components/shared")
REPORT = SHARED / "evaluation/report/templates/report.html"
AUGMENTATION = SHARED / "training/augmentation.py"
LOOP = SHARED / "training/loop.py"
METRICS = SHARED / "evaluation/metrics.py"
TRAINED = "epoch 1/1: 100 %"  # in the log of a run that trained
COMMENT = "\n# Nothing that runs.\n"
CODE = "\nMORE = 1\n"
GRAPHS = {
    "training": ("train", ()),
    "sweep": ("trial", ('settings=[{"learning_rate": 0.01}, {"learning_rate": 0.04}]',)),
    "distributed": ("train-distributed", ("nodes=2",)),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the code, to change it between two runs."""
    folder = tmp_path / "checkout"
    for name in ("components", "runner", "docker"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pipeline.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(checkout: Path, graph: str, *options: str, min_accuracy: int = 0) -> dict[str, Any]:
    """Run a graph on the digits by the code of the checkout, and return its summary."""
    settings = ("data=digits", "epochs=1", "batch_size=64", "threads=1", f"min_accuracy={min_accuracy}", "min_recall=0")
    command = [sys.executable, "pipeline.py", "local", "--graph", graph, *settings, *GRAPHS[graph][1], *options]
    done = subprocess.run(command, cwd=checkout, env=os.environ, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    summary: dict[str, Any] = json.loads((checkout / "runs/latest/summary.json").read_text())
    return summary


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {name: step["state"] for name, step in summary["steps"].items()}


def log(checkout: Path) -> str:
    return (checkout / "runs/latest/kfp.log").read_text()


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_run_reuses_what_a_change_does_not_reach(checkout: Path, graph: str) -> None:
    training = GRAPHS[graph][0]
    first = run(checkout, graph)
    _a_new_report_trains_nothing_and_makes_no_version(checkout, graph, training, first)
    append(checkout / (LOOP if graph == "distributed" else AUGMENTATION), CODE)
    third = run(checkout, graph, min_accuracy=1)
    assert (states(third)["preprocess"], states(third)[training]) == ("cached", "done")
    assert TRAINED in log(checkout)


def _a_new_report_trains_nothing_and_makes_no_version(
    checkout: Path, graph: str, training: str, first: dict[str, Any]
) -> None:
    append(checkout / REPORT, "<!-- more -->\n")
    append(checkout / LOOP, COMMENT)
    second = run(checkout, graph)
    assert states(second)["evaluate"] == "done"
    assert {states(second)[step] for step in ("download", "preprocess", training)} == {"cached"}
    assert second["registered"]["version"] == first["registered"]["version"] == 1


def test_a_finished_training_is_found_in_the_store(checkout: Path) -> None:
    run(checkout, "training", min_accuracy=1)
    weights = (checkout / "runs/latest/model/model.safetensors").read_bytes()
    append(checkout / METRICS, CODE)
    summary = run(checkout, "training", "--no-cache", min_accuracy=1)
    assert states(summary)["train"] == "done"
    assert TRAINED not in log(checkout)
    assert (checkout / "runs/latest/model/model.safetensors").read_bytes() == weights
