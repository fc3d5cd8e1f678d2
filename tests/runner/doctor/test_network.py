"""Doctor's check of the NetworkPolicies, and the rules by which it reads them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from runner.doctor.network import End, Flow, allows
from tests.runner.doctor.objects import (
    CLOSED_S3,
    PROFILE,
    PROFILE_LABELS,
    STANDALONE,
    STEP_LABELS,
    AssertFound,
    Examine,
    config_map,
    make_profile,
    model_of,
    node,
    policy,
    set_version,
)
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer

ROOT = Path(__file__).parents[3]
SELECT_STEPS = {"podSelector": {"matchLabels": STEP_LABELS}}
ALL = {"ipBlock": {"cidr": "0.0.0.0/0"}}
NO_METADATA = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}
PUBLIC_ONLY = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}}


def test_steps_without_egress(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(policy(STANDALONE, **SELECT_STEPS, policyTypes=["Egress"]))
    assert_found(
        "problem NetworkPolicy a NetworkPolicy keeps step download, step evaluate, step export, step finish, "
        "step preprocess, step register, step resolve, step train from DNS (UDP 53)"
    )


def test_no_traffic_at_all(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(policy(STANDALONE, policyTypes=["Egress", "Ingress"]))
    assert_found("problem NetworkPolicy a NetworkPolicy keeps every pod of a run from the Kubernetes API (TCP 6443)")


def test_egress_by_an_ip_block_is_a_warning(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(policy(STANDALONE, egress=[{"to": [ALL]}], policyTypes=["Egress"]))
    assert_found(
        "warning NetworkPolicy NetworkPolicies let every pod of a run reach ml-pipeline (TCP 8888) only by an ipBlock, "
        "which covers pods with some CNIs only -> allow egress to pods app=ml-pipeline,"
    )


def test_ip_blocks_in_both_directions_are_a_warning(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(
        policy(STANDALONE, **SELECT_STEPS, egress=[{"to": [NO_METADATA]}]),
        policy(STANDALONE, policyTypes=["Ingress"], ingress=[{"from": [ALL]}]),
    )
    assert_found(
        "warning NetworkPolicy NetworkPolicies let every pod of a run reach ml-pipeline (TCP 8888) only by an ipBlock"
    )


def test_ip_block_without_private_addresses(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(policy(STANDALONE, egress=[{"to": [PUBLIC_ONLY]}], policyTypes=["Egress"]))
    assert_found("problem NetworkPolicy a NetworkPolicy keeps every pod of a run from ml-pipeline (TCP 8888)")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders the manifests, is not installed")
def test_profile_with_our_manifests_allows_a_run(cluster: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    set_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(cluster)
    count = _apply_overlay(cluster, "manifests/overlays/multi-user")
    assert all(count.values())
    cluster.add(config_map("torch2kubeflow-s3", PROFILE), config_map("kfp-launcher", PROFILE))  # S3 is KFP's own
    cluster.add(node("gpu", gpu="1"))
    _, table = examine("gpus=1", "--namespace", PROFILE, "--s3-endpoint", CLOSED_S3)
    assert f"ok NetworkPolicy {count['NetworkPolicy']} NetworkPolicies allow what steps" in table, table
    assert "ok LimitRange every container of a run, KFP's and Argo's too, is within the LimitRange" in table
    assert "problem quota" not in table, table


def _apply_overlay(cluster: KubeServer, overlay: str) -> dict[str, int]:
    """Add the policies, quotas and LimitRanges of an overlay to the Profile; return how many there are of each."""
    command = ["kubectl", "kustomize", overlay]
    rendered = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    count = {"NetworkPolicy": 0, "ResourceQuota": 0, "LimitRange": 0}
    for document in yaml.safe_load_all(rendered.stdout):
        if document["kind"] in count:
            count[document["kind"]] += 1
            document["metadata"]["namespace"] = PROFILE
            cluster.add(model_of(document))
    return count


SOURCE = End("step", PROFILE, PROFILE_LABELS, STEP_LABELS)
SERVER = End("server", STANDALONE, {"kubernetes.io/metadata.name": STANDALONE}, {"app": "ml-pipeline"})
OUTSIDE = End("outside", "", {}, {}, "192.0.2.7")
TO_SERVER = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": STANDALONE}},
    "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["ml-pipeline", "minio"]}]},
}


def _egress(**rule: Any) -> client.V1NetworkPolicy:
    """A policy of the source's namespace with one rule for egress."""
    return policy(PROFILE, egress=[rule])


@pytest.mark.parametrize(
    ("policies", "target", "is_allowed"),
    [
        pytest.param([], SERVER, True, id="no-policy"),
        pytest.param([policy(PROFILE, policyTypes=["Egress"])], SERVER, False, id="no-egress"),
        pytest.param([policy(PROFILE, policyTypes=["Ingress"])], SERVER, True, id="no-ingress-at-source"),
        pytest.param([policy(STANDALONE, policyTypes=["Egress"])], SERVER, True, id="no-egress-at-target"),
        pytest.param([policy(STANDALONE, policyTypes=["Ingress"])], SERVER, False, id="no-ingress"),
        pytest.param([policy(PROFILE, policyTypes=["Egress"], egress=[{}])], SERVER, True, id="empty-rule"),
        pytest.param([_egress(ports=[{"port": 8888}])], SERVER, True, id="port"),
        pytest.param([_egress(ports=[{"port": 8887}])], SERVER, False, id="other-port"),
        pytest.param([_egress(ports=[{"port": 8000, "endPort": 9000}])], SERVER, True, id="port-range"),
        pytest.param([_egress(ports=[{"port": 8888, "protocol": "UDP"}])], SERVER, False, id="other-protocol"),
        pytest.param([_egress(ports=[{"protocol": "TCP"}])], SERVER, True, id="all-ports-of-tcp"),
        pytest.param([_egress(ports=[{"port": "http"}])], SERVER, True, id="named-port"),
        pytest.param([_egress(ports=[{"port": "http", "protocol": "UDP"}])], SERVER, False, id="named-port-of-udp"),
        pytest.param([_egress(to=[TO_SERVER])], SERVER, True, id="namespace-and-pod"),
        pytest.param([_egress(to=[{"podSelector": {}}])], SERVER, False, id="pods-of-own-namespace"),
        pytest.param([_egress(to=[{"namespaceSelector": {}}])], SERVER, True, id="all-namespaces"),
        pytest.param([_egress(to=[ALL])], SERVER, False, id="ip-block-for-a-pod"),
        pytest.param([_egress(to=[ALL])], OUTSIDE, True, id="ip-block-of-all"),
        pytest.param([_egress(to=[{"ipBlock": {"cidr": "192.0.2.0/24"}}])], OUTSIDE, True, id="ip-block"),
        pytest.param(
            [_egress(to=[{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/28"]}}])],
            OUTSIDE,
            False,
            id="ip-block-except",
        ),
        pytest.param([_egress(to=[{"namespaceSelector": {}}])], OUTSIDE, False, id="namespaces-for-an-address"),
        pytest.param([policy(PROFILE, **SELECT_STEPS, policyTypes=["Egress"])], SERVER, False, id="selected-pod"),
        pytest.param(
            [policy(PROFILE, podSelector={"matchLabels": {"app": "other"}}, policyTypes=["Egress"])],
            SERVER,
            True,
            id="other-pods",
        ),
        pytest.param(
            [policy(PROFILE, policyTypes=["Egress"]), _egress(to=[TO_SERVER])], SERVER, True, id="policies-add-up"
        ),
        pytest.param(
            [policy(STANDALONE, ingress=[{"from": [{"namespaceSelector": {"matchLabels": PROFILE_LABELS}}]}])],
            SERVER,
            True,
            id="ingress-from-profiles",
        ),
        pytest.param(
            [policy(STANDALONE, ingress=[{"from": [{"podSelector": {}}]}])], SERVER, False, id="ingress-from-own-pods"
        ),
    ],
)
def test_policies_are_read_as_kubernetes_does(
    policies: list[client.V1NetworkPolicy], target: End, is_allowed: bool
) -> None:
    assert allows(policies, SOURCE, Flow(target, 8888)) is is_allowed
