"""Runs of the graph `prediction` in a cluster: what they say, and that verbs for other graphs take this one, too."""

import json
from pathlib import Path
from typing import Any

import pytest

import pipeline
from components.shared.core.errors import UserError
from components.shared.core.log import EVENT
from components.step_table import names_in
from runner.cluster import run
from runner.cluster.watch import watch
from runner.control import status
from runner.schedules import apply, schedule
from tests.runner.cluster.test_run import tasks
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer, Stage, pod_name

ORDER = names_in("prediction")
FACTS = {
    "model": "digits/7",
    "rows": 1797,
    "errors": 3,
    "labelled": 0,
    "correct": 0,
    "drift": "no drift",
    "training": "",
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)


def _wait(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = run_verb(run, "--wait", "--runs", str(folder), *words, pipeline=pipeline.prediction)
    (path,) = folder.glob("*/summary.json")
    return code, json.loads(path.read_text())


def _ended(kfp_api: KfpServer) -> None:
    kfp_api.plan = [Stage("SUCCEEDED", tasks(**dict.fromkeys(ORDER, "SUCCEEDED")))]


def test_a_run_says_how_many_pictures_it_predicted(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _ended(kfp_api)
    kfp_api.logs[pod_name("executor#collect")] = EVENT + json.dumps({"event": "predicted", **FACTS}) + "\n"
    code, document = _wait(tmp_path, "store=s3://b/team", "parts=3", "labels=l.csv")
    assert (code, document["predicted"], document["accepted"]) == (0, FACTS, None)
    assert document["parameters"] == {"store": "s3://b/team", "parts": 3, "labels": "l.csv"}
    shown = capsys.readouterr().out
    assert "predicted      1,797 pictures by digits/7, 3 of them unusable\n" in shown
    assert "verdict" not in shown and "test accuracy" not in shown
    assert run_verb(status, "latest", pipeline=pipeline.prediction) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:6]] == list(ORDER)


def test_what_was_predicted_may_not_be_known(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _ended(kfp_api)
    code, document = _wait(tmp_path)
    assert (code, document["predicted"]) == (0, None)
    assert "predicted      not known\n" in capsys.readouterr().out


def test_a_failed_run_predicted_nothing(kfp_api: KfpServer, tmp_path: Path) -> None:
    kfp_api.plan = [Stage("FAILED", tasks(**{"resolve-prediction": "FAILED", "finish": "SUCCEEDED"}))]
    code, document = _wait(tmp_path)
    assert (code != 0, document["state"], document["predicted"]) == (True, "failed", None)
    assert document["steps"]["resolve-prediction"]["state"] == "failed"


def test_predictions_are_scheduled_like_trainings(kfp_api: KfpServer, tmp_path: Path) -> None:
    words = ("add", "hourly", "@hourly", "data=https://example.org/scans.zip", "parts=4", "drift_threshold=0.3")
    assert run_verb(schedule, *words, "--graph", "prediction", pipeline=pipeline.prediction) == 0
    (item,) = kfp_api.recurring_runs.values()
    data = {"data": "https://example.org/scans.zip", "parts": 4, "options": {"drift_threshold": 0.3}}
    assert item.runtime_config.parameters == data
    file = tmp_path / "predictions.yaml"
    file.write_text(
        "pipeline: torch2kubeflow-prediction\nschedules:\n  daily: {when: '@daily', parameters: {parts: 2}}\n"
    )
    assert run_verb(apply, "-f", str(file), "--graph", "prediction", pipeline=pipeline.prediction) == 0
    found = {one.display_name: one.runtime_config.parameters for one in kfp_api.recurring_runs.values()}
    assert found == {"hourly": data, "daily": {"parts": 2}}
    with pytest.raises(UserError, match="'epochs=3' is not a parameter"):
        run_verb(run, "epochs=3", pipeline=pipeline.prediction)
