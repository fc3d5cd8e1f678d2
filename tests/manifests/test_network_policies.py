"""The manifests' NetworkPolicies, evaluated by what `doctor` judges a cluster with."""

import json
from types import SimpleNamespace

import pytest
from kubernetes import client

import pipeline
from runner.doctor.network import End, Flow, allows
from runner.doctor.preflight import RUN_LABELS, pods_of
from runner.parameters import complete
from tests.manifests.manifests import RUNS_LIVE_IN, find, needs_kubectl


def _policies(overlay: str) -> list[client.V1NetworkPolicy]:
    items = {"items": list(find(overlay, "NetworkPolicy").values())}
    policies = client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(items)), "V1NetworkPolicyList")
    return list(policies.items)


def _pod(namespace: str, labels: dict[str, str]) -> End:
    named = {"kubernetes.io/metadata.name": namespace}
    profile = {"app.kubernetes.io/part-of": "kubeflow-profile"} if namespace.startswith("team-") else {}
    return End(namespace, namespace, named | profile, labels)


def _address(ip: str) -> End:
    return End(ip, "", {}, {}, ip)


def _allowed(overlay: str, source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    return allows(_policies(overlay), source, Flow(target, port, protocol))


def _pods_of_a_run(overlay: str, kind: str) -> list[End]:
    """Return the pods of all steps, or one of KFP's driver, which has none of our labels."""
    return [_pod(RUNS_LIVE_IN[overlay], labels) for labels in (STEPS if kind == "steps" else [RUN_LABELS])]


STEPS = [pod.metadata.labels for pod in pods_of(pipeline.training, complete(pipeline.training, {}))]
DNS = _pod("kube-system", {"k8s-app": "kube-dns"})
KFP = _pod("kubeflow", {"app": "ml-pipeline"})
SEAWEEDFS = _pod("kubeflow", {"app": "seaweedfs"})
MYSQL = _pod("kubeflow", {"app": "mysql"})
NEEDED = {
    "dns": Flow(DNS, 53, "UDP"),
    "dns-by-tcp": Flow(DNS, 53),
    "dns-on-the-node": Flow(_address("169.254.20.10"), 53, "UDP"),
    "kubernetes-api": Flow(_address("10.0.0.10"), 6443),
    "kubernetes-api-of-a-cloud": Flow(_address("172.20.0.1"), 443),
    "metadata": Flow(_pod("kubeflow", {"component": "metadata-grpc-server"}), 8080),
    "kfp-cache": Flow(KFP, 8887),
    "kfp-api": Flow(KFP, 8888),
    "store": Flow(SEAWEEDFS, 8333),
    "store-of-an-older-kfp": Flow(_pod("kubeflow", {"app": "minio"}), 9000),
    "s3-of-amazon": Flow(_address("52.92.1.1"), 443),
    "s3-of-amazon-by-ipv6": Flow(_address("2600:1f18::1"), 443),
}
REFUSED = {
    "database-of-kfp": Flow(MYSQL, 3306),
    "inner-port-of-the-store": Flow(SEAWEEDFS, 8888),
    "another-team": Flow(_pod("team-b", {"app": "notebook"}), 8888),
    "credentials-of-the-node": Flow(_address("169.254.169.254"), 80),
    "credentials-of-the-node-by-https": Flow(_address("169.254.169.254"), 443),
    "credentials-of-the-node-by-ipv6": Flow(_address("fd00:ec2::254"), 443),
    "a-web-server-outside": Flow(_address("93.184.216.34"), 80),
    "dns-elsewhere": Flow(_address("8.8.8.8"), 53, "UDP"),
}


@needs_kubectl
@pytest.mark.parametrize("kind", ["steps", "driver"])
@pytest.mark.parametrize("overlay", RUNS_LIVE_IN)
def test_pods_of_a_run_reach_all_that_they_need(overlay: str, kind: str) -> None:
    policies = _policies(overlay)
    for pod in _pods_of_a_run(overlay, kind):
        for name, flow in NEEDED.items():
            assert allows(policies, pod, flow), name


@needs_kubectl
@pytest.mark.parametrize(
    ("overlay", "kind"), [*((overlay, "steps") for overlay in RUNS_LIVE_IN), ("multi-user", "driver")]
)
def test_pods_of_a_run_are_isolated(overlay: str, kind: str) -> None:
    policies = _policies(overlay)
    for pod in _pods_of_a_run(overlay, kind):
        for name, flow in REFUSED.items():
            assert not allows(policies, pod, flow), name
        for stranger in (MYSQL, _pod("team-b", {}), _address("10.0.0.10")):
            assert not allows(policies, stranger, Flow(pod, 8080))


@needs_kubectl
def test_standalone_leaves_the_other_pods_of_kfp_alone() -> None:
    assert _allowed("standalone", KFP, MYSQL, 3306)
    assert _allowed("standalone", _pod("team-b", {}), KFP, 8888)


@needs_kubectl
def test_a_profile_is_closed_except_for_runs_and_artifacts() -> None:
    notebook = _pod("team-a", {"app": "notebook"})
    assert not _allowed("multi-user", notebook, DNS, 53, "UDP")
    assert not _allowed("multi-user", _pod("team-b", {}), notebook, 8888)
    shows = _pod("team-a", {"app": "ml-pipeline-ui-artifact"})
    assert _allowed("multi-user", _pod("kubeflow", {"app": "ml-pipeline-ui"}), shows, 3000)
    assert _allowed("multi-user", shows, SEAWEEDFS, 8333)
    assert not _allowed("multi-user", _pod("team-b", {"app": "ml-pipeline-ui"}), shows, 3000)
    assert not _allowed("multi-user", shows, _address("52.92.1.1"), 443)


@needs_kubectl
@pytest.mark.parametrize("overlay", ["local", "minio"])
def test_only_runs_reach_our_own_store(overlay: str) -> None:
    (server,) = find(overlay, "StatefulSet").values()
    store = _pod(server["metadata"]["namespace"], server["spec"]["template"]["metadata"]["labels"])
    for pod in [*_pods_of_a_run(overlay, "steps"), *_pods_of_a_run(overlay, "driver"), _pod("team-a", {})]:
        assert _allowed(overlay, pod, store, 8333)
        assert not _allowed(overlay, pod, store, 9333)
    assert not _allowed(overlay, _pod("default", {}), store, 8333)
    assert not _allowed(overlay, store, _address("52.92.1.1"), 443)
