"""How a training goes on, shown from the log of its pod: on a terminal only, its progress in place."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from kfp_server_api import V2beta1Run
from kubernetes import client

import pipeline
from runner.cluster.watch.nodes import JOB_LABEL, RANK
from runner.control import status
from tests.runner.cluster.watch.conftest import CONTEXT, Clock, Watched
from tests.runner.cluster.watch.test_waiting import interrupt
from tests.runner.verbs import answered
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer
from tests.servers.recorded_cluster import log_of_evaluate, node_pod, pod_of, run_of, trainjob

EPOCH = "[train] epoch 1/9: loss 0.41, accuracy 88.20 %, 16,900 images/s\n"
BAR = "[train] epoch 2/9: {} % (25,200/60,000 images, 16,900 images/s, loss 0.12)\n"
GRAPH = pipeline.distributed
DISTRIBUTED = "torch2kubeflow-distributed-65hzv"


def running(pod: Any, node_name: str = "", run_id: str = "") -> Any:
    """Return a recorded pod as it is once it runs."""
    pod.status = client.V1PodStatus(phase="Running")
    pod.metadata.annotations["workflows.argoproj.io/node-name"] = node_name or "run(0).root(0).train(0).executor(0)"
    pod.metadata.labels["pipeline/runid"] = run_id or pod.metadata.labels["pipeline/runid"]
    return pod


def distributed_run() -> V2beta1Run:
    """Return the recorded stopped run as it was while step train-distributed ran."""
    run = run_of("stopped")
    run.state, run.state_history = "RUNNING", run.state_history[:2]
    (step,) = [task for task in run.run_details.task_details if task.display_name == "train-distributed"]
    for task in run.run_details.task_details:
        if task.start_time == step.start_time:
            task.state = "RUNNING"
    return run


def node_of(job: str, rank: int, run_id: str) -> tuple[Any, Any]:
    """Return the recorded TrainJob and the pod of a node of it."""
    found, pod = trainjob(), node_pod()
    found["metadata"] |= {"name": job, "labels": {"pipeline/runid": run_id}}
    pod.metadata.name, pod.metadata.labels[JOB_LABEL] = f"{job}-{rank}", job
    pod.metadata.annotations[RANK] = str(rank)
    return found, pod


def set_log(cluster: KubeServer, pod: Any, text: str) -> None:
    cluster.logs[pod.metadata.name] = log_of_evaluate() + text


def test_progress_is_shown_in_place(kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock) -> None:
    pod = running(pod_of("unschedulable"))
    cluster.add(pod)
    set_log(cluster, pod, EPOCH + BAR.format(20) + BAR.format(41))
    clock.at = [(10.0, lambda: set_log(cluster, pod, EPOCH + BAR.format(42) + BAR.format(77))), (20.0, interrupt)]
    _, shown = watched(kfp_api.replay("training", run_of("unschedulable")), *CONTEXT, live=True)
    assert shown.count("train      epoch 1/9: loss 0.41, accuracy 88.20 %, 16,900 images/s\n") == 1
    assert "\r\x1b[2Ktrain      epoch 2/9" in shown
    assert [percent for percent in (20, 41, 42, 77) if f" {percent} %" in shown] == [41, 77], (
        "the last line of each look"
    )


def test_elsewhere_nothing_is_read(kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock) -> None:
    pod = running(pod_of("unschedulable"))
    cluster.add(pod)
    set_log(cluster, pod, EPOCH)
    clock.at = [(20.0, interrupt)]
    _, shown = watched(kfp_api.replay("training", run_of("unschedulable")), *CONTEXT)
    assert "epoch" not in shown
    assert not [request for request in cluster.requests if request.resource == "pods/log"]


def test_a_distributed_training_is_shown(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock
) -> None:
    run = distributed_run()
    pod = running(pod_of("unschedulable"), f"{DISTRIBUTED}(0).root(0).train-distributed(0).executor(0)", run.run_id)
    cluster.add(pod)
    waits = "[train-distributed] waiting for a node: 0/1 nodes are available: 1 Insufficient cpu.\n"
    set_log(cluster, pod, waits + EPOCH)
    clock.at = [(20.0, interrupt)]
    _, shown = watched(kfp_api.replay("distributed", run), *CONTEXT, graph=pipeline.GRAPHS["distributed"], live=True)
    lines = [line for line in shown.splitlines() if line.startswith("train-distributed")]
    assert lines == [
        "train-distributed running",
        "train-distributed waiting for a node: 0/1 nodes are available: 1 Insufficient cpu.",
        "train-distributed epoch 1/9: loss 0.41, accuracy 88.20 %, 16,900 images/s",
    ]


@pytest.mark.parametrize("live", [False, True])
def test_nodes_that_wait_are_told_with_the_parameter(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock, live: bool
) -> None:
    run = distributed_run()
    step = running(pod_of("unschedulable"), f"{DISTRIBUTED}(0).root(0).train-distributed(0).executor(0)", run.run_id)
    told = "0/1 nodes are available: 1 Insufficient cpu"
    set_log(cluster, step, f"[train-distributed] waiting for a node: {told}.\n")
    statuses = [pod_of(name).status for name in ("unschedulable", "unschedulable", "image-not-found")]
    nodes = [node_of("train-7", rank, run.run_id) for rank in range(3)]
    for (_, pod), found in zip(nodes, statuses, strict=True):
        pod.status, pod.spec.containers[0].resources = found, pod_of("unschedulable").spec.containers[1].resources
    cluster.add(step, *(pod for _, pod in nodes))
    cluster.custom["trainjobs"] = [nodes[0][0]]
    run_id = kfp_api.replay("distributed", run)
    image = "image 127.0.0.1:5000/me/torch2kubeflow/torch:nosuch cannot be pulled: not found"
    remedy = "give a smaller train_cpu= (now 4) or push it with `make push`, or let the service account pull"
    waits = f"nodes 0, 1: {told}; node 2: {image}; {remedy}"
    answer = json.loads(answered(status, run_id, *CONTEXT, pipeline=GRAPH).to_json())
    (found,) = [step for step in answer["steps"] if step["waits"]]
    assert found["step"] == "train-distributed" and found["waits"].startswith(waits)
    clock.at = [(20.0, lambda: cluster.custom["trainjobs"].clear()), (25.0, lambda: start(nodes)), (40.0, interrupt)]
    _, shown = watched(run_id, *CONTEXT, graph=GRAPH, live=live)
    assert shown.count(f"train-distributed waits: {waits}") == shown.count("waits") == 1
    assert "waiting for a node" not in shown, "the step says the same, without the remedy"


def job_event(reason: str, second: int, message: str) -> client.CoreV1Event:
    """Return an event of the Job of a TrainJob's nodes; its name is a recorded one's, the refusal is not recorded."""
    job = client.V1ObjectReference(name="train-7-node-0", kind="Job")
    metadata = client.V1ObjectMeta(name=f"{reason}-{second}", namespace="kubeflow")
    seen = datetime(2026, 11, 29, 13, 15, second, tzinfo=UTC)
    return client.CoreV1Event(
        involved_object=job, metadata=metadata, reason=reason, message=message, last_timestamp=seen
    )


def test_a_quota_that_refuses_nodes_is_told(kfp_api: KfpServer, cluster: KubeServer) -> None:
    run = distributed_run()
    step = running(pod_of("unschedulable"), f"{DISTRIBUTED}(0).root(0).train-distributed(0).executor(0)", run.run_id)
    job, first = node_of("train-7", 0, run.run_id)
    cluster.add(step, first)
    cluster.custom["trainjobs"] = [job]
    quota = "exceeded quota: torch2kubeflow, requested: requests.memory=4Gi, used: requests.memory=6Gi, limited: 8Gi"
    refusal = f'Error creating: pods "train-7-node-0-1-v725b" is forbidden: {quota}'
    run_id = kfp_api.replay("distributed", run)

    def told() -> list[str]:
        answer = json.loads(answered(status, run_id, *CONTEXT, pipeline=GRAPH).to_json())
        return [step["waits"] for step in answer["steps"] if step["waits"]]

    assert told() == [], "its second node is not there, and nothing tells why"
    for event in (job_event("SuccessfulCreate", 46, "Created pod"), job_event("FailedCreate", 46, refusal)):
        cluster.objects["events", "kubeflow", event.metadata.name] = event
    assert told() == [f"{quota}; give a smaller train_memory= or wait until other pods have ended"]
    event = job_event("SuccessfulCreate", 48, "Created pod")
    cluster.objects["events", "kubeflow", event.metadata.name] = event
    assert told() == [], "it was taken since"
    del cluster.objects["events", "kubeflow", "SuccessfulCreate-48"]
    cluster.add(node_of("train-7", 1, run.run_id)[1])
    assert told() == [], "all are there"


def start(nodes: list[tuple[Any, Any]]) -> None:
    for _, pod in nodes:
        pod.status = client.V1PodStatus(phase="Running")


def test_each_trial_that_runs_has_a_row(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock
) -> None:
    run = distributed_run()
    group = "torch2kubeflow-sweep-dr6g7(0).root(0).exit-handler-1(0).for-loop-2(0)"
    pods = []
    for number in (0, 1):
        item = f"{group}.iteration-iterations({number}:{number})(0).iteration-item(0).trial(0).executor(0)"
        pods.append(running(pod_of("unschedulable"), item, run.run_id))
        pods[-1].metadata.name = f"trial-{number}"
    cluster.add(*pods)
    epoch, bar = (text.replace("[train]", "[trial]") for text in (EPOCH, BAR))
    for pod, trial, percent in zip(pods, (1, 5), (20, 41), strict=True):
        set_log(cluster, pod, f'[trial] trial {trial}: {{"epochs": 9}}\n{epoch}{bar.format(percent)}')
    later = f"[trial] trial 6: {{}}\n{epoch}{bar.format(3)}"
    clock.at = [(10.0, lambda: set_log(cluster, pods[1], later)), (20.0, interrupt)]
    _, shown = watched(kfp_api.replay("sweep", run), *CONTEXT, graph=pipeline.sweep, live=True)
    for trial in (1, 5, 6):
        assert shown.count(f"trial      trial {trial}, epoch 1/9: loss 0.41, accuracy 88.20 %, 16,900 images/s\n") == 1
    rows = re.findall(r"(trial +trial \d, epoch 2/9) +[█░]", shown)
    assert rows[:2] == ["trial      trial 1, epoch 2/9", "trial      trial 5, epoch 2/9"]
    assert rows[-2:] == ["trial      trial 1, epoch 2/9", "trial      trial 6, epoch 2/9"]
    assert "\r\x1b[1A\x1b[J" in shown, "in place of the two rows before"


@pytest.mark.parametrize("denied", [{"list pods"}, {"get pods/log"}])
def test_without_rights_nothing_is_shown(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock, denied: set[str]
) -> None:
    cluster.add(running(pod_of("unschedulable")))
    cluster.denied, clock.at = denied, [(60.0, interrupt)]
    _, shown = watched(kfp_api.replay("training", run_of("unschedulable")), *CONTEXT, live=True)
    assert shown.count("is not seen from here: Kubernetes forbids you to") == 1
    assert "epoch" not in shown
