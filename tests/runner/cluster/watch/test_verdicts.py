"""The verdict in the summary of a run in the cluster: what its steps reported, or "not known"."""

import json
from pathlib import Path
from typing import Any

import pytest
from kfp_server_api import V2beta1Run

from components.shared.core.log import EVENT
from tests.runner.cluster.watch.conftest import Watched
from tests.servers.kfp_server import KfpServer
from tests.servers.recorded_cluster import ended_run, log_of_evaluate, polled_run

WORKFLOW = "torch2kubeflow-training-4ptts"  # of the recorded run
PODS = {"evaluate": 1070299643, "export": 1209803917, "register": 3324135096}  # by the executors' last children
ORIGIN = "00000000-1111-2222-3333-444444444444"


def pod(step: str) -> str:
    return f"{WORKFLOW}-metadata-0-2-retry-system-container-impl-{PODS[step]}"


def event(kind: str, **fields: Any) -> str:
    return EVENT + json.dumps({"event": kind, **fields}) + "\n"


def summary(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/summary.json")
    return dict(json.loads(path.read_text()))


def executor_of(run: V2beta1Run, step: str) -> Any:
    """Return the executor of a step of the recorded run, which lists no tree."""
    (task,) = [task for task in run.run_details.task_details if task.display_name == step]
    return next(
        one
        for one in run.run_details.task_details
        if one.display_name == "executor" and one.start_time == task.start_time
    )


def cached(run: V2beta1Run) -> V2beta1Run:
    """Return the run as if evaluate had been cached: its executor was skipped (as recorded of download)."""
    executor = executor_of(run, "evaluate")
    executor.state, executor.child_tasks = "SKIPPED", None
    return run


def test_the_verdict_and_the_version_are_those_of_the_events(
    kfp_api: KfpServer, watched: Watched, tmp_path: Path
) -> None:
    run = ended_run()
    kfp_api.logs[pod("evaluate")] = event("verdict", accuracy=0.95, accepted=True, reasons=[])
    told = {"name": "digits", "version": 4, "is_champion": False, "reason": "not better"}
    kfp_api.logs[pod("register")] = event("registered", **told)
    _, shown = watched(kfp_api.replay("training", run))
    document = summary(tmp_path)
    assert (document["test_accuracy"], document["accepted"], document["registered"]) == (0.95, True, told)
    assert "registered     digits version 4, not champion: not better" in shown


def test_a_cached_verdict_is_that_of_the_run_it_is_from(kfp_api: KfpServer, watched: Watched, tmp_path: Path) -> None:
    """Where KFP keeps an artifact, and that it prints the inputs of a step, is recorded; a cached run is not."""
    run, origin = cached(ended_run()), ended_run()
    path = f"minio://mlpipeline/v2/artifacts/torch2kubeflow-training/{ORIGIN}/evaluate/543dd048/evaluation"
    assert "/v2/artifacts/torch2kubeflow-training/" in log_of_evaluate()
    origin.run_id = ORIGIN
    kfp_api.replay("training", origin)
    kfp_api.logs[pod("register")] = log_of_evaluate().partition('"outputs"')[0] + f'"uri": "{path}"\n'
    kfp_api.logs[pod("evaluate")] = event("verdict", accuracy=0.95, accepted=True, reasons=[])
    _, shown = watched(kfp_api.replay("training", run))
    assert f"test accuracy  95.00% (cached, from run {ORIGIN})" in shown
    assert summary(tmp_path)["test_accuracy"] == 0.95


@pytest.mark.parametrize("log", ["", "nothing of it\n"])
def test_a_cached_verdict_whose_run_is_not_named(kfp_api: KfpServer, watched: Watched, log: str) -> None:
    kfp_api.logs[pod("register")] = log
    _, shown = watched(kfp_api.replay("training", cached(ended_run())))
    assert "test accuracy  not known\n" in shown
    assert "verdict        not known\n" in shown


def test_a_cached_verdict_whose_run_was_deleted(kfp_api: KfpServer, watched: Watched) -> None:
    kfp_api.logs[pod("register")] = (
        f'"uri": "minio://mlpipeline/v2/artifacts/torch2kubeflow-training/{ORIGIN}/evaluate/"'
    )
    _, shown = watched(kfp_api.replay("training", cached(ended_run())))
    assert "test accuracy  not known\n" in shown


def test_register_repeats_a_cached_verdict(kfp_api: KfpServer, watched: Watched, tmp_path: Path) -> None:
    told = {"event": "verdict", "accuracy": 0.5, "accepted": False, "reasons": ["too low"]}
    kfp_api.logs[pod("register")] = f"{EVENT}{json.dumps(told)}\n"
    code, shown = watched(kfp_api.replay("training", cached(ended_run())))
    assert (code, summary(tmp_path)["accepted"]) == (0, False)
    assert "verdict        not accepted, not exported: too low" in shown


def test_the_seconds_are_those_of_the_containers(kfp_api: KfpServer, watched: Watched, tmp_path: Path) -> None:
    _, shown = watched(kfp_api.replay("training", *polled_run()))
    steps = summary(tmp_path)["steps"]
    assert (steps["train"]["seconds"], steps["evaluate"]["seconds"]) == (54.0, 4.0), "by the launcher, not 73 and 10"
    assert steps["resolve"]["seconds"] == 4.0, "by the pod: the launcher tells nothing of a step that is not cached"
    assert [line.split() for line in shown.splitlines() if line.startswith("train ")][:2] == [
        ["train", "running"],
        ["train", "done", "in", "54", "s"],
    ]
    assert ["total", "244.0"] in [line.split() for line in shown.splitlines()], "of the whole run"
