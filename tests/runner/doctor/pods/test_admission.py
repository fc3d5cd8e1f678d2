"""Doctor's checks of admission: Pod Security, and a dry run of the training pod."""

from collections.abc import Callable

import pytest
from kubernetes import client

from runner.pods import USER
from tests.runner.doctor.objects import RESTRICTED, STANDALONE, AssertFound, Examine, argo, in_one_key, namespace, node
from tests.servers.kube_server import KubeServer, error


def test_dry_run_creates_the_training_pod(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(node("gpu", "nvidia.com/gpu=present:NoSchedule", labels={"disk": "ssd"}, gpu="4"))
    code, table = examine(
        "gpus=2", 'tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}]', 'node_selector={"disk": "ssd"}'
    )
    assert code == 0, table
    assert "step train (2 cpu, 4Gi memory, 2 nvidia.com/gpu) on 1 of 2 nodes" in table
    (pod,) = [model for model in cluster.created if isinstance(model, client.V1Pod)]
    (container,) = pod.spec.containers
    assert container.resources.limits == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "2"}
    assert container.security_context.run_as_user == USER
    assert container.security_context.capabilities.drop == ["ALL"]
    assert pod.spec.node_selector == {"disk": "ssd"}
    assert pod.metadata.labels["app.kubernetes.io/component"] == "train"


def test_argo_below_the_restricted_level(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(namespace(STANDALONE, RESTRICTED))
    assert_found("problem Pod Security Pod Security level restricted, but Argo's own containers")


@pytest.mark.parametrize("form", [lambda settings: settings, in_one_key], ids=["keys", "one-key"])
def test_argo_may_meet_the_restricted_level(
    cluster: KubeServer, examine: Examine, form: Callable[[client.V1ConfigMap], client.V1ConfigMap]
) -> None:
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    cluster.add(namespace(STANDALONE, RESTRICTED), form(argo("Always", securityContext=security)))
    assert "ok Pod Security Pod Security level restricted, which our steps and Argo's containers meet" in examine()[1]


def test_restricted_level_without_argos_config_map(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("configmaps", "workflow-controller-configmap")
    cluster.add(namespace(STANDALONE, RESTRICTED))
    assert_found("unknown Pod Security Pod Security level restricted; without ConfigMap workflow-controller-configmap")


def test_pod_security_violation(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.admission = 'violates PodSecurity "restricted:latest": unrestricted capabilities'
    assert_found(
        'problem admission the cluster refuses the training pod: pods "torch2kubeflow-doctor-train" is forbidden: '
        'violates PodSecurity "restricted:latest": unrestricted capabilities -> have the namespace\'s label'
    )


def test_exceeded_quota_is_a_warning(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.admission = "exceeded quota: team, requested: cpu=2, used: cpu=3, limited: cpu=4"
    assert_found("warning admission the cluster refuses the training pod: ")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (
            422,
            "spec.nodeSelector: Invalid value: must be no more",
            "problem admission the cluster refuses the training pod: spec.nodeSelector: Invalid value: must be no more "
            "-> change the parameters that it names",
        ),
        (
            400,
            'webhook "team" denied the request: no owner',
            'problem admission the cluster refuses the training pod: webhook "team" denied the request: no owner',
        ),
        (
            400,
            'webhook "team" does not support dry run',
            'unknown admission the training pod cannot be checked: webhook "team" does not support dry run',
        ),
    ],
    ids=["invalid-value", "webhook", "webhook-without-dry-run"],
)
def test_refused_dry_run(
    cluster: KubeServer, assert_found: AssertFound, status: int, message: str, expected: str
) -> None:
    cluster.faults["create pods"] = error(status, message)
    assert_found(expected)
