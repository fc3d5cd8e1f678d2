"""What is shown of a pod that waits: Kubernetes' reason, once and again if it changes, with the remedy."""

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from runner.cluster.watch.reasons import step_of, why_waiting
from runner.control import status
from tests.runner.cluster.watch.conftest import CONTEXT, Clock, Watched
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer, error
from tests.servers.recorded_cluster import pod_of, run_of

WAITS = "train      waits: 0/1 nodes are available: 1 Insufficient cpu; give a smaller train_cpu= (now 4)\n"


def interrupt() -> None:
    raise KeyboardInterrupt


def scheduling(message: str, step: str = "train", **requests: str) -> Any:
    """Return the recorded pod as the scheduler would speak of it."""
    pod = pod_of("unschedulable")
    pod.metadata.annotations["workflows.argoproj.io/node-name"] = f"run(0).root(0).{step}(0).executor(0)"
    pod.status.conditions[0].message = message
    pod.spec.containers[1].resources.requests |= requests
    return pod


def change(pod: Any, message: str) -> Callable[[], None]:
    return lambda: setattr(pod.status.conditions[0], "message", message)


@pytest.mark.parametrize("seconds", [15.0, 120.0])
def test_the_reason_is_shown_within_15_seconds_and_once(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock, seconds: float
) -> None:
    run_id = kfp_api.replay("training", run_of("unschedulable"))
    cluster.add(pod_of("unschedulable"))
    clock.at = [(seconds, interrupt)]
    code, shown = watched(run_id, *CONTEXT)
    assert (code, clock.now) == (130, seconds)
    assert shown.count(WAITS) == shown.count("waits") == 1


def test_a_changed_reason_is_shown_again(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock
) -> None:
    pod = pod_of("unschedulable")
    cluster.add(pod)
    clock.at = [(20.0, change(pod, "0/2 nodes are available: 2 Insufficient cpu.")), (60.0, interrupt)]
    _, shown = watched(kfp_api.replay("training", run_of("unschedulable")), *CONTEXT)
    assert shown.count("waits: ") == 2
    assert shown.index("0/1 nodes") < shown.index("0/2 nodes are available: 2 Insufficient cpu; give a smaller")
    assert "train      starting\n" in shown and "running" not in shown


def test_status_shows_it(kfp_api: KfpServer, cluster: KubeServer, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.add(pod_of("unschedulable"))
    assert run_verb(status, kfp_api.replay("training", run_of("unschedulable")), *CONTEXT) == 0
    lines = capsys.readouterr().out.splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith("train ")]
    assert lines[number].split() == ["train", "starting", "0.0"]
    assert lines[number + 1].strip() == WAITS.partition("train      ")[2].strip()


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (scheduling("0/1 nodes are available: 1 Insufficient memory."), "give a smaller train_memory= (now 4Gi)"),
        (
            scheduling("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", **{"nvidia.com/gpu": "2"}),
            "give a smaller gpus= (now 2)",
        ),
        (
            scheduling("0/2 nodes are available: 2 node(s) had untolerated taint(s)."),
            "give tolerations= for the taints",
        ),
        (
            scheduling("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."),
            "label a node for it",
        ),
        (scheduling("0/1 nodes are available: 1 Insufficient cpu.", "evaluate"), "make room on a node for 4 of cpu"),
        (scheduling("0/9 nodes are available: 9 Too many pods."), "`python pipeline.py doctor` looks at the nodes"),
    ],
)
def test_each_shortage_has_its_parameter(pod: Any, reason: str) -> None:
    found = why_waiting(pod)  # messages of kube-scheduler 1.34's plugins, not recorded but for the first form
    assert found is not None and found.remedy == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "image-not-found",
            "image 127.0.0.1:5000/me/torch2kubeflow/torch:nosuch cannot be pulled: not found; push it with `make push`",
        ),
        ("secret-missing", 'secret "nosuch" not found; create it, or name another secret'),
    ],
)
def test_a_container_that_cannot_start(name: str, reason: str) -> None:
    assert str(why_waiting(pod_of(name))).startswith(reason)


def refused_by_quota(run_id: str, node: str) -> dict[str, Any]:
    """Return the Workflow of a run in which Argo's node has no pod, as argoproj/argo-workflows#5811 shows it."""
    asked = "requested: limits.cpu=4,requests.nvidia.com/gpu=1, used: limits.cpu=1400m, limited: limits.cpu=2"
    message = f'pods "run-7-2271333198" is forbidden: exceeded quota: torch2kubeflow, {asked}'
    nodes = {"a": {"id": "a", "name": node, "displayName": "executor(0)", "phase": "Pending", "message": message}}
    other = {
        "id": "b",
        "name": "run(0).evaluate(0)",
        "displayName": "b",
        "phase": "Pending",
        "message": "ContainerCreating",
    }
    return {"metadata": {"name": "w", "labels": {"pipeline/runid": run_id}}, "status": {"nodes": {**nodes, "b": other}}}


def test_a_pod_that_a_quota_refuses(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = kfp_api.replay("training", run_of("unschedulable"))
    cluster.custom["workflows"] = [refused_by_quota(run_id, "run(0).root(0).exit-handler-1(0).train(0).executor(0)")]
    clock.at = [(5.0, interrupt)]
    watched(run_id, *CONTEXT)
    assert "list workflows" not in map(str, cluster.requests), "between two steps there is none for some seconds"
    clock.at = [(20.0, interrupt)]
    _, shown = watched(run_id, *CONTEXT)
    told = "limits.cpu=4,requests.nvidia.com/gpu=1, used: limits.cpu=1400m, limited: limits.cpu=2"
    waits = f"waits: exceeded quota: torch2kubeflow, requested: {told}; "
    remedy = "give a smaller gpus= or give a smaller train_cpu= or wait until other pods have ended"
    assert shown.count(f"train      {waits}{remedy}\n") == shown.count("waits") == 1
    assert run_verb(status, run_id, *CONTEXT) == 0
    assert f"{waits}{remedy}\n" in capsys.readouterr().out
    cluster.custom["workflows"] = [refused_by_quota(run_id, "run(0).root(0).exit-handler-1(0).train-driver(0)")]
    run_verb(status, run_id, *CONTEXT)
    assert f"{waits}wait until other pods have ended\n" in capsys.readouterr().out, "KFP's driver is no training"
    cluster.requests.clear()
    cluster.add(pod_of("unschedulable"))
    run_verb(status, run_id, *CONTEXT)
    assert "quota" not in capsys.readouterr().out
    assert "list workflows" not in map(str, cluster.requests), "its pod tells"


def creating() -> Any:
    """Return a pod that has a node and waits for a volume, as a kubelet describes it (not recorded)."""
    pod = pod_of("image-not-found")
    pod.metadata.annotations = {"workflows.argoproj.io/node-name": "run(0).root(0).train(0).executor(0)"}
    waits = client.V1ContainerStateWaiting(reason="ContainerCreating")
    pod.status.container_statuses[0].state = client.V1ContainerState(waiting=waits)
    return pod


def mount_event() -> Any:
    message = 'MountVolume.SetUp failed for volume "dshm" : secret "dshm" not found'
    pod = client.V1ObjectReference(name="pull-fails")
    metadata = client.V1ObjectMeta(name="e1", namespace="kubeflow")
    return client.CoreV1Event(involved_object=pod, metadata=metadata, reason="FailedMount", message=message)


def test_a_volume_that_cannot_be_mounted(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock
) -> None:
    run = run_of("unschedulable")
    pod, event = creating(), mount_event()
    pod.metadata.labels = {"pipeline/runid": run.run_id, "workflows.argoproj.io/completed": "false"}
    cluster.add(pod)
    cluster.objects["events", "kubeflow", "e1"] = event
    clock.at = [(15.0, interrupt)]
    _, shown = watched(kfp_api.replay("training", run), *CONTEXT)
    assert f"train      waits: {event.message}; check the volume" in shown


def test_a_pod_that_runs_or_is_just_made_waits_for_nothing() -> None:
    pod = creating()
    assert why_waiting(pod) is None
    pod.status.phase = "Running"
    assert why_waiting(pod) is None


def test_a_driver_waits_for_its_step() -> None:
    pod = pod_of("unschedulable")
    pod.metadata.annotations["workflows.argoproj.io/node-name"] = "run-x(0).root(0).exit-handler-1(0).train-driver(0)"
    assert step_of(pod) == "train"
    pod.metadata.annotations["workflows.argoproj.io/node-name"] = "r(0).loop(0).iteration-item(0).trial(0).executor(1)"
    assert step_of(pod) == "trial"


@pytest.mark.parametrize("denied", ["list pods", "list pods without a context"])
def test_without_rights_it_is_said_once(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock, denied: str
) -> None:
    cluster.denied, clock.at = {"list pods"}, [(60.0, interrupt)]
    words = CONTEXT if denied == "list pods" else ()
    _, shown = watched(kfp_api.replay("training", run_of("unschedulable")), *words)
    why = "Kubernetes forbids you to list pods in namespace kubeflow; ask for that right"
    reason = why if words else "only KFP's API was reached; give --context too"
    assert shown.count(f"note       why a pod waits or was killed is not seen from here: {reason}") == 1
    assert "train      starting" in shown
    assert len([one for one in cluster.requests if str(one) == "list pods"]) == (1 if words else 0)


def test_a_kubernetes_that_does_not_answer_is_asked_again(
    kfp_api: KfpServer, cluster: KubeServer, watched: Watched, clock: Clock
) -> None:
    cluster.faults["list pods"] = error(503)
    cluster.add(pod_of("unschedulable"))
    clock.at = [(20.0, cluster.faults.clear), (40.0, interrupt)]
    _, shown = watched(kfp_api.replay("training", run_of("unschedulable")), *CONTEXT)
    assert WAITS in shown and "note" not in shown
