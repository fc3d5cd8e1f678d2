"""What is said of a run that failed or was stopped: what killed its step, else the step's own last line."""

import json
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

import pipeline
from components.shared.core.errors import UserError
from components.shared.core.log import EVENT
from runner.cluster import run_state
from runner.cluster.watch.failure import own_lines
from runner.cluster.watch.pods import container_seconds
from runner.cluster.watch.reasons import why_killed
from runner.control import status
from tests.runner.cluster.watch.conftest import CONTEXT, Clock, Watched
from tests.runner.cluster.watch.test_progress import DISTRIBUTED, distributed_run, node_of
from tests.runner.cluster.watch.test_progress import running as running_pod
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer
from tests.servers.recorded_cluster import log_of_evaluate, pod_of, run_of

# What KFP 2.17's launcher writes after a step that failed; the step's own words are recorded only for one that ended.
LAUNCHER = "F1129 13:21:49.100000      16 main.go:56] failed to execute component: {}\nError: exit status 1\n"
DUMP = log_of_evaluate() + "        }\n    }\n}\n"
STEP = "train"
POD = "torch2kubeflow-training-9pjb5-metadata-0-2-retry-system-container-impl-2094614407"


def summary(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/summary.json")
    return dict(json.loads(path.read_text()))


def test_a_step_killed_for_memory_names_limit_and_parameter(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, tmp_path: Path
) -> None:
    cluster.add(pod_of("oom-killed"))
    cluster.logs[POD] = DUMP + "[train] epoch 1/3: loss 0.4\nKilled\n" + LAUNCHER.format("exit status 137")
    code, shown = watched(kfp_api.replay("training", run_of("killed")), *CONTEXT)
    error = "killed for want of memory: its limit is 350Mi; give more train_memory="
    assert (code, summary(tmp_path)["error"]) == (1, error)
    assert f"error: train failed: {error}\n" in shown
    assert "executor_input" not in shown and "Killed\n" not in shown


def test_the_seconds_of_a_failed_step_are_its_containers(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, tmp_path: Path
) -> None:
    cluster.add(pod_of("oom-killed"))
    cluster.logs[POD] = ""
    _, shown = watched(kfp_api.replay("training", run_of("killed")), *CONTEXT)
    assert summary(tmp_path)["steps"]["train"]["seconds"] == 18.0, "72 by Argo's step, 22 by its pod"
    assert "train      failed in 18 s\n" in shown
    waiting = pod_of("unschedulable")
    assert container_seconds([pod_of("oom-killed"), waiting]) is None, "it does not tell of all"


def test_without_rights_on_pods_the_launcher_tells_the_signal(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, tmp_path: Path
) -> None:
    cluster.denied = {"list pods"}
    kfp_api.logs[POD] = DUMP + "[train] epoch 1/3: loss 0.4\nKilled\n" + LAUNCHER.format("exit status 137")
    _, shown = watched(kfp_api.replay("training", run_of("killed")), *CONTEXT)
    assert "error: train failed: killed by SIGKILL, most often for want of memory; give more train_memory=\n" in shown
    assert shown.count("why a pod waits or was killed is not seen from here") == 1


def test_the_error_is_the_last_line_of_the_step(kfp_api: KfpServer, watched: Watched, tmp_path: Path) -> None:
    own = "[train-distributed] epoch 7/9: loss 0.2\n" * 60 + "RuntimeError: NCCL error\n"
    kfp_api.logs[POD] = DUMP + own + LAUNCHER.format("exit status 1")
    _, shown = watched(kfp_api.replay("training", run_of("killed")))
    assert summary(tmp_path)["error"] == "RuntimeError: NCCL error"
    assert "epoch 7/9" not in shown, "the whole log of the training"
    assert shown.splitlines()[-3:-1] == ["RuntimeError: NCCL error", "error: train failed: RuntimeError: NCCL error"]


def test_only_the_last_traceback_is_shown(kfp_api: KfpServer, watched: Watched) -> None:
    traceback = 'Traceback (most recent call last):\n  File "train.py", line 1\nValueError: a bug\n'
    kfp_api.logs[POD] = DUMP + "[train] epoch 1/3: loss 0.4\n" + traceback + LAUNCHER.format("exit status 1")
    _, shown = watched(kfp_api.replay("training", run_of("killed")))
    assert traceback + "error: train failed: ValueError: a bug\n" in shown
    assert "epoch 1/3" not in shown


def test_a_reported_error_comes_before_all_others(kfp_api: KfpServer, cluster: KubeServer, watched: Watched) -> None:
    cluster.add(pod_of("oom-killed"))
    event = EVENT + json.dumps({"event": "error", **UserError("no GPU here", "give gpus=0").to_json()})
    cluster.logs[POD] = f"{DUMP}{event}\n{LAUNCHER.format('exit status 1')}"
    code, shown = watched(kfp_api.replay("training", run_of("killed")), *CONTEXT)
    assert code == 2 and "error: train failed: no GPU here; give gpus=0\n" in shown


def test_a_pod_that_was_deleted_left_no_log(kfp_api: KfpServer, cluster: KubeServer, watched: Watched) -> None:
    """The message is recorded in an event of Argo (WorkflowNodeError), the Workflow is not."""
    run = run_of("killed")
    nodes = {
        str(number): {"id": str(number), "displayName": name, "phase": "Error", "startedAt": "2026-11-29T13:21:28Z"}
        for number, name in enumerate(("train", "executor(0)"))
    }
    for node in nodes.values():
        node |= {"finishedAt": "2026-11-29T13:22:40Z", "message": "pod deleted"}
    metadata = {"name": "w", "labels": {"pipeline/runid": run.run_id}}
    cluster.custom["workflows"] = [{"metadata": metadata, "status": {"nodes": nodes}}]
    _, shown = watched(kfp_api.replay("training", run), *CONTEXT)
    assert "error: train failed: its pod was deleted; run it again, or with --retries 3\n" in shown


def test_without_the_workflow_a_missing_log_is_said(kfp_api: KfpServer, cluster: KubeServer, watched: Watched) -> None:
    _, shown = watched(kfp_api.replay("training", run_of("killed")), *CONTEXT)
    assert "error: train failed: its log cannot be read from here; give --context" in shown


def test_the_dump_of_kfp_is_no_line_of_the_step() -> None:
    assert list(own_lines(DUMP + "[evaluate] here\n\n" + LAUNCHER.format("signal: killed"))) == ["[evaluate] here"]


def test_status_says_why_a_step_failed(
    kfp_api: KfpServer, cluster: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add(pod_of("oom-killed"))
    run_id = kfp_api.replay("training", run_of("killed"))
    error = "killed for want of memory: its limit is 350Mi; give more train_memory="
    lines = status_lines(capsys, run_id, *CONTEXT)
    assert after("train", lines) == error
    assert ["train", "failed", "18.0"] in [line.split() for line in lines], (
        "as run --wait says, not 22 by its pod in Argo"
    )
    cluster.remove("pods", POD)
    told = "its log cannot be read from here; give --context"
    assert after("train", status_lines(capsys, run_id, *CONTEXT)).startswith(told)
    goes_on = run_of("killed")
    goes_on.state, goes_on.finished_at = "RUNNING", None
    run_id = kfp_api.replay("training", goes_on)
    assert after("train", status_lines(capsys, run_id)).startswith("evaluate"), "step finish has not ended"


def status_lines(capsys: pytest.CaptureFixture[str], run_id: str, *words: str, graph: str = "training") -> list[str]:
    capsys.readouterr()
    assert run_verb(status, run_id, *words, pipeline=pipeline.GRAPHS[graph]) == 0
    return capsys.readouterr().out.splitlines()


def after(step: str, lines: list[str]) -> str:
    """What stands below a step."""
    (number,) = [number for number, line in enumerate(lines) if line.startswith(f"{step} ")]
    return lines[number + 1].strip()


def killed_node(rank: int, job: str, run_id: str) -> tuple[Any, Any]:
    """Return the recorded TrainJob and the pod of a node, with the recorded end of another pod killed for memory."""
    found, pod = node_of(job, rank, run_id)
    killed = pod_of("oom-killed")
    pod.spec.containers[0].resources = client.V1ResourceRequirements(limits={"memory": "2Gi"})
    pod.status = killed.status
    (status,) = [one for one in pod.status.container_statuses if one.name == "main"]
    status.name, pod.status.container_statuses = "node", [status]
    return found, pod


def test_a_node_of_a_trainjob_killed_for_memory_is_named(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    running, ended = distributed_run(), run_of("stopped")
    ended.state_history = [entry for entry in ended.state_history if entry.state != "CANCELING"]
    name = f"{DISTRIBUTED}(0).root(0).train-distributed(0).executor(0)"
    cluster.add(step_pod := running_pod(pod_of("unschedulable"), name, running.run_id))
    job, pod = killed_node(1, "train-7", running.run_id)
    _, deleted = killed_node(0, "train-7", running.run_id)
    deleted.metadata.deletion_timestamp = "2026-11-29T13:29:41Z"
    cluster.custom["trainjobs"] = [job]
    cluster.add(pod, deleted)

    def clean_up() -> None:  # as step finish does
        cluster.custom["trainjobs"] = []
        for one in (pod, deleted, step_pod):
            cluster.remove("pods", one.metadata.name)

    killed = "node 1 was killed for want of memory: its limit is 2Gi; give more train_memory="
    run_id = kfp_api.replay("distributed", running)
    assert after("train-distributed", status_lines(capsys, run_id, *CONTEXT, graph="distributed")) == killed
    clock.at = [(20.0, clean_up)]
    _, shown = watched(kfp_api.replay("distributed", *[running] * 6, ended), *CONTEXT, graph=pipeline.distributed)
    assert shown.count(f"train-distributed {killed}\n") == 1
    assert "node 0" not in shown, "it was taken away because the other one ended"
    assert f"error: train-distributed failed: {killed}\n" in shown


def killed_by(code: int) -> Any:
    pod = pod_of("oom-killed")
    ended = pod.status.container_statuses[0].state.terminated
    ended.reason, ended.exit_code = "Error", code
    return pod


def lost(told: str, **changes: Any) -> Any:
    """Return a pod whose node went away, as Kubernetes' controllers mark it (from their sources, not recorded)."""
    pod = pod_of("oom-killed")
    pod.status.container_statuses = None
    pod.status.conditions[0].type = "DisruptionTarget"
    pod.status.conditions[0].status = "True"
    pod.status.conditions[0].message = told
    for name, value in changes.items():
        setattr(pod.status, name, value)
    return pod


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (
            pod_of("evicted-for-disk"),
            "evicted: Pod ephemeral local storage usage exceeds the total limit of containers 20Mi; "
            "the step needs more disk: ask for nodes or a quota with more of it",
        ),
        (
            pod_of("deadline-exceeded"),
            "ended after 8 s, the most that this step may take; see its log",
        ),
        (
            lost("Taint manager: deleting"),
            "taken away by Kubernetes: Taint manager: deleting; run it again, or with --retries 3",
        ),
        (
            lost("", reason="NodeLost", message="Node node which was running pod is unresponsive"),
            "its node was lost (Node node which was running pod is unresponsive); run it again, or with --retries 3",
        ),
        (
            lost("", reason="Evicted", message="The node was low on resource: memory. "),
            "evicted: The node was low on resource: memory; give more train_memory=",
        ),
        (killed_by(137), "killed by SIGKILL, most often for want of memory; give more train_memory="),
        (killed_by(143), "ended by SIGTERM, as when its node is drained; run it again, or with --retries 3"),
        (killed_by(139), "killed by SIGSEGV; see its log"),
        (killed_by(1), "None"),
        (pod_of("unschedulable"), "None"),
    ],
)
def test_what_ended_a_pod(pod: Any, reason: str) -> None:
    assert str(why_killed(pod)) == reason


@pytest.mark.parametrize(("name", "graph"), [("stopped", "distributed"), ("stopped-after-retry", "training")])
def test_a_stopped_run_is_canceled(
    kfp_api: KfpServer, watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, graph: str
) -> None:
    run_id = kfp_api.replay(graph, run_of(name))
    code, shown = watched(run_id, graph=pipeline.GRAPHS[graph])
    document = summary(tmp_path)
    assert (code, document["state"], document["error"]) == (3, "canceled", None)
    assert "error: the run was canceled\n" in shown
    assert [line for line in shown.splitlines() if "failed" in line and "the record of the run" not in line] == []
    assert run_verb(status, run_id, pipeline=pipeline.GRAPHS[graph]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": canceled") and not [line for line in lines if "failed" in line]


def test_a_run_that_was_stopped_once_and_failed_later_has_failed() -> None:
    run = run_of("stopped-after-retry")
    assert run_state.state(run) == "canceled"
    run.state_history.append(type(run.state_history[0])(state="RUNNING"))
    run.state_history.append(type(run.state_history[0])(state="FAILED"))
    assert run_state.state(run) == "failed"
    assert run_state.state(run_of("killed")) == "failed"
