"""The graph `prediction` as a user runs it, by a model of real digits: pytest tests/runner/local/test_prediction.py"""

import json
from pathlib import Path
from typing import Any

import pytest

from components.evaluate import evaluate
from components.export import export
from components.shared.parameters.evaluation import ExportRecipe
from components.shared.registry.registry import RegisteredModel
from components.shared.storage.client import Store
from runner.prediction import predict
from tests.conftest import Runner
from tests.runner.verbs import run_verb
from tests.small_packages import Artifacts
from tests.trained_digits import write_dataset, write_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_variables")]
WORDS = ("--graph", "prediction", "data=digits", "parts=2", "threads=1")


def _register(folder: Path, dataset: Path, store: str, epochs: int) -> int:
    """Train, evaluate, export and register a model of the digits; return its version."""
    folder.mkdir()
    made = Artifacts(dataset, write_model(folder / "model", dataset, epochs), folder / "evaluation", folder / "package")
    recipe = ExportRecipe.of(min_accuracy=0.0, min_recall=0.0, threads=1)
    judged = {name: folder / name for name in ("metrics", "classification", "report", "evaluation")}
    evaluate(dataset=dataset, model=made.model, recipe=recipe.text().replace("onnx_opset=18;", ""), **judged)
    export(dataset=dataset, model=made.model, recipe=recipe.text(), package=made.package)
    (folder / "out").mkdir()
    return int(made.register(folder / "out", store, "digits")["version"])


def _run(run_here: Runner, tmp_path: Path, *words: str) -> tuple[dict[str, Any], str]:
    done = run_here(*WORDS, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads((tmp_path / "runs/latest/summary.json").read_text()), done.stdout


def test_digits_are_predicted_by_two_pods(tmp_path: Path, run_here: Runner, store: Store, uri: str) -> None:
    digits = write_dataset(tmp_path / "dataset", classes=list("0123456789"))
    assert _register(tmp_path / "first", digits, uri, epochs=2) == 1
    words = (f"store={uri}", "retrain=false")
    summary, shown = _run(run_here, tmp_path, *words)
    steps = {name: step["state"] for name, step in summary["steps"].items()}
    assert steps == dict.fromkeys(("resolve-prediction", "download", "predict", "collect", "finish"), "done")
    assert (summary["predicted"]["model"], summary["predicted"]["rows"]) == ("digits/1", 1797)
    assert summary["predicted"]["correct"] > 900 and summary["accepted"] is None
    assert "predicted      1,797 pictures by digits/1\n" in shown and "of 1,797 labels\n" in shown
    assert "verdict" not in shown and "test accuracy" not in shown
    folder = tmp_path / "runs/latest"
    assert run_verb(predict, "digits", "--store", uri, "--threads", "1", "--output", str(tmp_path / "verb")) == 0
    assert (folder / "predictions/predictions.csv").read_bytes() == (tmp_path / "verb/predictions.csv").read_bytes()
    assert (folder / "uncertain.html").read_text().count("<figure>") == 50
    shares = [*folder.glob("torch2kubeflow-prediction-*/*/predict/share")]
    assert sorted(len([*share.glob("part-*")]) for share in shares) == [1, 1], "each pod has made its own"

    summary, _ = _run(run_here, tmp_path, *words)
    steps = {name: step["state"] for name, step in summary["steps"].items()}
    assert (steps["predict"], steps["collect"]) == ("cached", "done"), "the same champion, data and code"

    assert _register(tmp_path / "second", digits, uri, epochs=4) == 2
    RegisteredModel(store, "digits").promote(2)
    summary, _ = _run(run_here, tmp_path, *words)
    steps = {name: step["state"] for name, step in summary["steps"].items()}
    assert (steps["download"], steps["predict"]) == ("cached", "done"), "by the new champion"
    assert summary["predicted"]["model"] == "digits/2"
    keys = {entry.name.split("/")[2] for entry in store.list("predictions/digits")}
    assert len(keys) == 2


def test_an_unknown_version_ends_the_run_in_one_line(tmp_path: Path, run_here: Runner) -> None:
    failed = run_here(*WORDS, "model_name=nothing")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: resolve-prediction: s3://torch2kubeflow has no model nothing: ")
    assert failed.stderr.count("\n") == 1
    steps = json.loads((tmp_path / "runs/latest/summary.json").read_text())["steps"]
    assert steps["download"]["state"] == "skipped"
