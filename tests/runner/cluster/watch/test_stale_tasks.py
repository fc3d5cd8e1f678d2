"""Runs whose tasks are stale in KFP's API: of the steps only what Argo or their own events say is said."""

import base64
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from components.shared.core.log import EVENT
from pipeline import sweep, training
from runner.cluster import run_state
from runner.cluster.watch.pods import correct_by_pods
from runner.cluster.watch.workflow import tasks_in
from runner.control import status
from tests.runner.cluster.watch.conftest import CONTEXT, Clock, Watched
from tests.runner.cluster.watch.test_progress import running
from tests.runner.cluster.watch.test_waiting import interrupt
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer
from tests.servers.recorded_cluster import ended_run, pod_of, polled_run, run_of, workflow

EVALUATED = EVENT + json.dumps({"event": "verdict", "accuracy": 0.91, "accepted": True, "reasons": []}) + "\n"
SIDE_BY_SIDE = ("evaluate", "export")
EVALUATE_POD = "torch2kubeflow-sweep-dr6g7-metadata-0-2-retry-system-container-impl-886180414"


def summary(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/summary.json")
    return dict(json.loads(path.read_text()))


def test_the_steps_are_those_of_the_workflow(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, tmp_path: Path
) -> None:
    cluster.custom["workflows"] = [workflow()]
    run_id = kfp_api.replay("sweep", run_of("stale"))
    code, shown = watched(run_id, *CONTEXT, graph=sweep)
    assert code == 0
    steps = summary(tmp_path)["steps"]
    assert {step: state["state"] for step, state in steps.items()} == dict.fromkeys(steps, "done")
    assert steps["evaluate"]["seconds"] == 4.0, "the launcher's own time: 139 s were waiting, of the pod"
    assert "verdict        not known" in shown, "export runs whatever the verdict is"
    assert "canceled" not in shown and "skipped" not in shown


def test_without_rights_the_steps_are_not_known(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, tmp_path: Path
) -> None:
    cluster.denied = {"list pods", "list workflows"}
    run_id = kfp_api.replay("sweep", run_of("stale"))
    code, shown = watched(run_id, *CONTEXT, graph=sweep)
    assert code == 0, "the run's state is the truth"
    document = summary(tmp_path)
    steps: Any = document["steps"]
    assert {name for name, step in steps.items() if step["state"] == "not known"} == {"export", "register", "finish"}
    assert steps["evaluate"]["state"] == "done"
    assert (document["accepted"], document["test_accuracy"], document["registered"]) == (None, None, None)
    assert "verdict        not known" in shown
    assert shown.count("the states of some steps are not known: Kubernetes forbids you to list workflows") == 1


def test_the_verdict_is_what_evaluate_reported(kfp_api: KfpServer, cluster: KubeServer, watched: Watched) -> None:
    cluster.denied = {"list pods", "list workflows"}
    run = run_of("stale")
    (node,) = [t.child_tasks[0].pod_name for t in run.run_details.task_details if t.display_name == "evaluate(0)"][:1]
    executor = [t for t in run.run_details.task_details if t.display_name == "executor"]
    for task in executor:
        for child in task.child_tasks or []:
            workflow_name, _, number = child.pod_name.rpartition("-")
            pod = f"{workflow_name}-metadata-0-2-retry-system-container-impl-{number}"
            if task.start_time.minute == 8 and task.start_time.second == 51:
                kfp_api.logs[pod] = EVALUATED
    assert node and kfp_api.logs
    _, shown = watched(kfp_api.replay("sweep", run), *CONTEXT, graph=sweep)
    assert "test accuracy  91.00%" in shown
    assert "verdict        accepted" in shown


def registering() -> tuple[Any, Any, Any]:
    """Return the run as KFP showed it while it registered, with its Workflow and pod."""
    run, pod, document = run_of("stale"), pod_of("unschedulable"), workflow()
    run.state, run.state_history, run.finished_at = "RUNNING", run.state_history[:2], None
    pod.metadata.labels["pipeline/runid"], pod.status = run.run_id, client.V1PodStatus(phase="Running")
    name = "w(0).root(0).exit-handler-1(0).condition-3(0).register(0).executor(0)"
    pod.metadata.annotations["workflows.argoproj.io/node-name"] = name
    packed = document["status"].pop("compressedNodes")
    nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
    shown = {key: node for key, node in nodes.items() if "onExit" not in node["name"]}
    for node in shown.values():
        if "register" in node["name"].split("condition-3(0)")[-1] and "driver" not in node["name"]:
            node["phase"], node["finishedAt"] = "Running", None
    document["status"]["nodes"] = shown
    return run, document, pod


def test_stale_tasks_of_a_run_that_goes_on_are_seen_by_its_pods(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock
) -> None:
    run, document, pod = registering()
    cluster.custom["workflows"] = [document]
    cluster.add(pod)
    clock.at = [(10.0, interrupt)]
    _, shown = watched(kfp_api.replay("sweep", run), *CONTEXT, graph=sweep)
    lines = [line.split() for line in shown.splitlines()]
    assert ["export", "done", "in", "7", "s"] in lines and ["register", "running"] in lines
    cluster.objects.clear()
    assert "export     starting" in watched_again(watched, clock, run.run_id), "KFP's own, if no pod tells better"


def watched_again(watched: Watched, clock: Clock, run_id: str) -> str:
    clock.at = [(clock.now + 10.0, interrupt)]
    return watched(run_id, *CONTEXT, graph=sweep)[1]


NOT_KNOWN = "the states of some steps are not known: Kubernetes forbids you to list workflows"


@pytest.mark.parametrize(("reads", "notes"), [(4, 0), (20, 1)])
def test_kfp_may_be_late_before_its_tasks_are_called_stale(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock, reads: int, notes: int
) -> None:
    """The pod that trains runs, while KFP still tells of step resolve, as often as it is asked."""
    late, later = polled_run()[1:3]
    cluster.denied = {"list workflows"}
    cluster.add(running(pod_of("unschedulable"), run_id=late.run_id))
    clock.at = [(60.0, interrupt)]
    _, shown = watched(kfp_api.replay("training", *[late] * reads, later), *CONTEXT)
    assert shown.count(NOT_KNOWN) == notes
    assert ("resolve    starting" in shown) is bool(notes) and ("train      running" in shown) is not notes


@pytest.mark.slow
def test_kfp_may_be_late_at_the_end_of_a_run(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.denied = {"list pods", "list workflows"}
    late, right = run_of("stale"), run_of("stale")
    for task in right.run_details.task_details:
        task.state, task.end_time = task.state and "SUCCEEDED", task.end_time or right.finished_at
    _, shown = watched(kfp_api.replay("sweep", *[late] * 3, right), *CONTEXT, graph=sweep)
    assert clock.now == 15.0 and NOT_KNOWN not in shown and "not known\n" not in shown.partition("step ")[0]
    late.finished_at = right.finished_at = datetime.now(UTC)
    kfp_api.replay("sweep", *[late] * 4, right)
    assert run_verb(status, right.run_id, *CONTEXT, pipeline=sweep) == 0
    read = capsys.readouterr()
    assert "not known" not in read.out + read.err


def test_of_two_steps_side_by_side_their_pods_tell_which_waits() -> None:
    run = ended_run()
    steps = run_state.steps(run, training)
    pods = {name: running(pod_of("unschedulable"), f"run(0).root(0).{name}(0).executor(0)") for name in SIDE_BY_SIDE}
    driver = running(pod_of("unschedulable"), "run(0).root(0).export-driver(0)")
    pods["export"].status.phase = "Pending"
    for name in SIDE_BY_SIDE:
        steps[name].state = "running"
    correct_by_pods(steps, [*pods.values(), driver])
    assert [steps[name].state for name in SIDE_BY_SIDE] == ["running", "starting"]
    correct_by_pods(steps, [driver])
    assert steps["train"].state == "done" and steps["export"].state == "starting", "a driver is not the step"


def test_status_says_the_same(kfp_api: KfpServer, cluster: KubeServer, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.custom["workflows"] = [workflow()]
    run_id = kfp_api.replay("sweep", run_of("stale"))
    assert run_verb(status, run_id, *CONTEXT, pipeline=sweep) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines[1:-2]} == {"done"}
    assert lines[-2].split() == ["total", "450.0"]


def test_plain_nodes_are_read_as_compressed_ones() -> None:
    compressed = workflow()
    tasks = tasks_in(compressed)
    assert tasks is not None and len(tasks) == 111
    nodes = {task.task_id: {"id": task.task_id, "displayName": "train", "phase": "Omitted"} for task in tasks[:1]}
    (plain,) = tasks_in({"status": {"nodes": nodes}}) or []
    assert (plain.display_name, plain.state, plain.start_time) == ("train", None, None)
    assert tasks_in({"status": {"offloadNodeStatusVersion": "fnv:1"}}) is None, "kept in a database"


def test_a_run_that_goes_on_is_not_stale() -> None:
    assert run_state.is_stale(run_of("stale"))
    assert not any(run_state.is_stale(run_of(name)) for name in ("unschedulable", "killed", "stopped"))
