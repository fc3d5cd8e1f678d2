"""Verbs `retry` and `rerun`, and the name and description of a run."""

from pathlib import Path
from typing import Any

import pytest

import pipeline
from components.shared.core.errors import UserError
from runner.cluster import run, upload
from runner.cluster.watch import watch
from runner.control import rerun, retry
from tests.runner.verbs import answered, changed_pipeline, run_verb
from tests.servers.kfp_http import error, lost
from tests.servers.kfp_server import KfpServer, Stage


def _only(kfp_api: KfpServer) -> Any:
    (found,) = kfp_api.runs.values()
    return found


def _newest(kfp_api: KfpServer) -> Any:
    return list(kfp_api.runs.values())[-1]


def test_a_failed_run_is_retried(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    kfp_api.plan = [Stage("FAILED", {"train": "FAILED"})]
    kfp_api.plan_of_retry = [Stage("RUNNING", {"train": "RUNNING"})]
    run_verb(run)
    document = answered(retry, "latest")
    assert isinstance(document, run.StartDocument) and document.run.state == "running"
    assert len(kfp_api.asked("POST /runs/.*:retry")) == 1
    assert "retried; the steps that were done are not run again" in capsys.readouterr().out


def test_a_retried_run_is_waited_for(
    kfp_api: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0)
    kfp_api.plan = [Stage("FAILED", {"train": "FAILED"})]
    run_verb(run)
    assert run_verb(retry, "latest", "--wait", "--runs", str(tmp_path)) == 0
    assert (tmp_path / _only(kfp_api).run_id / "summary.json").exists()


def test_a_run_that_succeeded_is_not_retried(kfp_api: KfpServer) -> None:
    """KFP's answer, 409, is a recorded one."""
    run_verb(run)
    run_id = _only(kfp_api).run_id
    with pytest.raises(UserError, match=rf"which is done: .* start it again with `python pipeline.py rerun {run_id}`"):
        run_verb(retry, run_id)
    kfp_api.script("POST .*:retry", error(403, "no right"))
    with pytest.raises(UserError, match="no right"):
        run_verb(retry, run_id)


def test_rerun_takes_all_but_what_is_named(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    run_verb(run, "epochs=5", "data=digits", "--experiment", "mine", "--pipeline-root", "s3://b/root")
    first = _only(kfp_api)
    first.service_account = "trainer"  # which Kubeflow's UI lets people choose
    run_verb(upload, pipeline=changed_pipeline)  # a newer version, with other parameters
    capsys.readouterr()
    assert run_verb(rerun, "latest", "epochs=40") == 0
    again = _newest(kfp_api)
    assert again.runtime_config.parameters == {"epochs": 40, "data": "digits"}
    assert again.runtime_config.pipeline_root == "s3://b/root"
    assert (again.experiment_id, again.service_account) == (first.experiment_id, "trainer")
    assert again.pipeline_version_reference == first.pipeline_version_reference
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"again: {first.display_name}, version ") and shown[0].endswith(", epochs 5 -> 40")


@pytest.mark.slow
def test_rerun_of_options_keeps_the_others(kfp_api: KfpServer) -> None:
    run_verb(run, "mixup=0.2", "flip=true", pipeline=pipeline.training)
    assert run_verb(rerun, "latest", "flip=false", "epochs=9", pipeline=pipeline.training) == 0
    assert _newest(kfp_api).runtime_config.parameters == {"epochs": 9, "options": {"mixup": 0.2, "flip": False}}
    with pytest.raises(UserError, match="'epoch=9' is not a parameter"):
        run_verb(rerun, "latest", "epoch=9", pipeline=pipeline.training)


def test_rerun_without_its_version_or_of_another_pipeline(kfp_api: KfpServer) -> None:
    run_verb(run)
    with pytest.raises(UserError, match="is not one of torch2kubeflow-sweep"):
        run_verb(rerun, _only(kfp_api).run_id, pipeline=pipeline.sweep)
    kfp_api.versions.clear()
    with pytest.raises(UserError, match=r"the version that run .* had was deleted"):
        run_verb(rerun, "latest")


@pytest.mark.slow
def test_latest_is_that_of_all_graphs(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    from runner.verbs.parser import parse

    def again(*words: str) -> Any:
        arguments = parse(["rerun", "latest", *words])
        chosen = [pipeline.GRAPHS[arguments.graph]] if arguments.graph else pipeline.GRAPHS.values()
        assert rerun.handle(arguments, *chosen) == 0
        return _newest(kfp_api).pipeline_version_reference.pipeline_id

    with pytest.raises(UserError, match="torch2kubeflow-prediction has no run; start one"):
        again()
    ids = []
    for graph in ("sweep", "training"):
        run_verb(run, "--graph", graph, pipeline=pipeline.GRAPHS[graph])
        ids.append(_newest(kfp_api).pipeline_version_reference.pipeline_id)
    assert again() == ids[1]
    assert again("--graph", "sweep") == ids[0]
    assert again() == ids[0]


def test_a_run_has_a_name_and_a_description(kfp_api: KfpServer) -> None:
    run_verb(run, "--name", "try 7", "--description", "with a smaller learning rate")
    assert (_only(kfp_api).display_name, _only(kfp_api).description) == ("try 7", "with a smaller learning rate")


def test_a_run_of_a_used_name_whose_creation_is_not_confirmed(kfp_api: KfpServer) -> None:
    run_verb(run, "--name", "try")
    kfp_api.script("POST /runs", lost)
    assert run_verb(run, "--name", "try") == 0
    assert len(kfp_api.runs) == 2


def test_another_run_of_that_name_is_not_taken_for_it(kfp_api: KfpServer) -> None:
    from tests.servers.kfp_http import cut

    run_verb(run, "--name", "try")
    kfp_api.script("POST /runs", cut)
    with pytest.raises(UserError, match="cuts the connection"):
        run_verb(run, "--name", "try")
