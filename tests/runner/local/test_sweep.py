"""A whole sweep, as a user runs it: pytest tests/runner/local/test_sweep.py"""

import json
from pathlib import Path

import pytest

from tests.conftest import Runner

WORDS = ("--graph", "sweep", "data=digits", "epochs=2", "batch_size=64", "min_accuracy=1", "min_recall=0", "threads=1")


@pytest.mark.slow
def test_a_sweep_evaluates_its_best_trial(tmp_path: Path, run_here: Runner) -> None:
    settings = [
        {"learning_rate": 0.03},
        {"learning_rate": 1e30, "optimizer": "sgd"},
        {"learning_rate": 1e-6, "epochs": 3},
    ]
    done = run_here(*WORDS, "stopping=asha", "parallel=2", f"settings={json.dumps(settings)}")
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "runs" / "latest"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["pipeline"] == "torch2kubeflow-sweep"
    assert {step["state"] for step in summary["steps"].values()} == {"done"}
    assert summary["registered"]["version"] is None
    assert list(summary["steps"])[3:5] == ["trial", "compare"]
    sweep = summary["sweep"]
    assert [(trial["state"], trial["epochs"]) for trial in sweep["trials"]] == [
        ("done", 2),
        ("failed", 0),
        ("stopped", 1),
    ]
    assert "not among the best 1/3 of 2 trials" in sweep["trials"][2]["reason"], "the trials share the embedded store"
    assert sweep["best"] == 1
    assert "best trial     1 of 3: learning_rate=0.03" in done.stdout
    assert "trial      trial 2 ended without a model: the loss became" in done.stdout
    assert "Trial 1 is the best" in (folder / "sweep.html").read_text()
    history = json.loads((folder / "model" / "history.json").read_text())
    assert max(epoch["val_accuracy"] for epoch in history["epochs"]) == sweep["trials"][0]["val_accuracy"]
    evaluation = json.loads((folder / summary["artifacts"]["evaluation"] / "evaluation.json").read_text())
    assert evaluation["accuracy"] == summary["test_accuracy"] > 0.5
    assert summary["parameters"]["settings"] == settings and summary["parameters"]["parallel"] == 2
    assert not list(folder.rglob("*.partial"))
    pods = folder.glob("torch2kubeflow-sweep-*/*/trial/trials")
    assert sorted(sorted(path.name for path in pod.iterdir()) for pod in pods) == [["1", "3"], ["2"]], "dealt to pods"
    kept = [path.parent.name for path in folder.glob("torch2kubeflow-sweep-*/*/trial/trials/*/model.safetensors")]
    assert kept == ["1"], "a pod keeps the weights of its best trial alone"


@pytest.mark.slow
def test_an_invalid_setting_is_refused_before_anything_runs(tmp_path: Path, run_here: Runner) -> None:
    failed = run_here(*WORDS, 'settings=[{"learning_rte": 0.1}]')
    assert failed.returncode == 2
    assert failed.stderr.startswith(
        "error: settings, trial 1: 'learning_rte' is not a parameter of a training (did you mean learning_rate"
    )
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
