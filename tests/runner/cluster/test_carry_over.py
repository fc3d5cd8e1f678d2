"""Recurring runs of earlier code that follow the latest version, after an upload: they fit its inputs then."""

import json
from pathlib import Path
from typing import Any

import kfp_server_api as api
import pytest

import pipeline
from runner.cluster import upload
from runner.schedules import apply
from tests.conftest import ROOT
from tests.runner.verbs import run_verb
from tests.servers.kfp_messages import parse
from tests.servers.kfp_server import KfpServer

FIXTURES = ROOT / "tests" / "fixtures" / "cd652ef"
RECURRING: list[dict[str, Any]] = json.loads((FIXTURES / "recurring_run.json").read_text())
MOVED = "sunday: follows the latest version, so flip became part of `options`"


def schedule(kfp_api: KfpServer, name: str, **changes: Any) -> Any:
    """Put a recurring run of cd652ef, with other parameters if given, into a KFP that has the present version."""
    if not kfp_api.versions:
        assert run_verb(upload, pipeline=pipeline.training) == 0
    (document,) = [one["returned"] for one in RECURRING if one["returned"]["display_name"] == name]
    item = parse(document, "V2beta1RecurringRun")
    item.pipeline_version_reference.pipeline_id = next(iter(kfp_api.pipelines))
    item.runtime_config.parameters |= changes
    kfp_api.experiments[item.experiment_id] = api.V2beta1Experiment(
        display_name="retraining", experiment_id=item.experiment_id, namespace="kubeflow"
    )
    kfp_api.recurring_runs[item.recurring_run_id] = item
    return item


def named(kfp_api: KfpServer, name: str) -> Any:
    (item,) = [item for item in kfp_api.recurring_runs.values() if item.display_name == name]
    return item


@pytest.mark.slow
def test_a_parameter_without_an_input_moves_to_options(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    before = schedule(kfp_api, "sunday")
    assert run_verb(upload, pipeline=pipeline.training) == 0
    after = named(kfp_api, "sunday")
    assert capsys.readouterr().out.splitlines().count(MOVED) == 1
    given = before.runtime_config.parameters
    assert after.runtime_config.parameters == {
        **{name: value for name, value in given.items() if name != "flip"},
        "options": {"flip": True},
    }
    for same in ("description", "trigger", "no_catchup", "max_concurrency", "status", "experiment_id"):
        assert getattr(after, same) == getattr(before, same), same
    assert run_verb(upload, pipeline=pipeline.training) == 0
    assert named(kfp_api, "sunday") is after, "nothing is left to do"


@pytest.mark.slow
def test_apply_moves_those_that_it_does_not_manage(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule(kfp_api, "sunday").description = ""
    file = tmp_path / "deploy.yaml"
    file.write_text(f"pipeline: {pipeline.training.name}\nschedules: {{}}\n")
    assert run_verb(apply, "-f", str(file), "--dry-run", pipeline=pipeline.training) == 0
    assert MOVED not in capsys.readouterr().out
    assert run_verb(apply, "-f", str(file), pipeline=pipeline.training) == 0
    assert MOVED in capsys.readouterr().out


@pytest.mark.slow
def test_apply_replaces_those_that_it_manages(
    kfp_api: KfpServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule(kfp_api, "sunday")
    parameters = [one["returned"] for one in RECURRING if one["returned"]["display_name"] == "sunday"]
    given = parameters[0]["runtime_config"]["parameters"]
    keys = {
        "when": "0 4 * * sun",
        "follow_latest": True,
        "enabled": False,
        "max_concurrency": 3,
        "catch_up": True,
        "parameters": given,
    }
    file = tmp_path / "deploy.yaml"
    file.write_text(json.dumps({"pipeline": pipeline.training.name, "schedules": {"sunday": keys}}))
    assert run_verb(apply, "-f", str(file), "--dry-run", pipeline=pipeline.training) == 0
    assert "sunday: would replace (inputs of an earlier version -> of this one)" in capsys.readouterr().out


def test_others_are_left_alone(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    items = [schedule(kfp_api, name) for name in ("by-hand", "latest-by-hand", "nightly")]
    items[0].runtime_config.parameters["flip"] = True  # it runs its own version
    assert run_verb(upload, pipeline=pipeline.training) == 0
    assert list(kfp_api.recurring_runs.values()) == items
    assert "options" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_parameter_that_no_longer_exists_is_named(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    item = schedule(kfp_api, "sunday", colour="red")
    assert run_verb(upload, pipeline=pipeline.training) == 0
    assert list(kfp_api.recurring_runs.values()) == [item]
    expected = "warning: sunday follows the latest version, which has no parameter colour: its runs will fail"
    assert expected in capsys.readouterr().err
