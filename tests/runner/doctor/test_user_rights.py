"""What doctor reports if its user lacks rights, or the Kubernetes API fails."""

import pytest

from tests.runner.doctor.objects import PROFILE, Examine, launcher, make_profile, quota, set_version
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import Answer, KubeServer, cut, error

RULES = {
    "get namespaces": 'resources: ["namespaces"], verbs: ["get"]} in a ClusterRole',
    "get secrets": '{apiGroups: [""], resources: ["secrets"], verbs: ["get"]} in a Role in namespace kubeflow',
    "get configmaps": 'resources: ["configmaps"], verbs: ["get"]}',
    "get deployments": '{apiGroups: ["apps"], resources: ["deployments"], verbs: ["get"]} in a Role in namespace ',
    "list nodes": 'resources: ["nodes"], verbs: ["list"]} in a ClusterRole',
    "list resourcequotas": 'resources: ["resourcequotas"], verbs: ["list"]}',
    "list limitranges": 'resources: ["limitranges"], verbs: ["list"]}',
    "create pods": 'resources: ["pods"], verbs: ["create"]}',
    "list networkpolicies": '{apiGroups: ["networking.k8s.io"], resources: ["networkpolicies"], verbs: ["list"]}',
    "get endpoints": 'resources: ["endpoints"], verbs: ["get"]} in a Role in namespace default',
    "get serviceaccounts": 'resources: ["serviceaccounts"], verbs: ["get"]}',
    "create localsubjectaccessreviews": '["authorization.k8s.io"], resources: ["localsubjectaccessreviews"]',
}
OF_KFPS_NAMESPACE = {  # right that an editor of a Profile lacks there -> the checks that need it
    "get configmaps": "retries",
    "get deployments": "Katib, requeue, run size",
    "get services": "S3",
    "list networkpolicies": "NetworkPolicy",
}


@pytest.mark.parametrize("denied", RULES)
def test_missing_right_is_named(cluster: KubeServer, examine: Examine, denied: str) -> None:
    cluster.denied.add(denied)
    _, table = examine()
    assert any(line.startswith("unknown") and RULES[denied] in line for line in table.splitlines()), table


def test_a_missing_right_is_named_once(cluster: KubeServer, examine: Examine) -> None:
    cluster.denied |= {"get secrets", "list nodes"}
    _, table = examine()
    (line,) = [line for line in table.splitlines() if "this user" in line]
    assert line == (
        "unknown rights some checks are incomplete without these rights of this user: get secrets in namespace "
        'kubeflow (Secrets, launcher, S3); list nodes (nodes) -> ask for {apiGroups: [""], resources: ["secrets"], '
        'verbs: ["get"]} in a Role in namespace kubeflow; {apiGroups: [""], resources: ["nodes"], verbs: ["list"]} in '
        "a ClusterRole"
    )


def test_without_any_right_there_is_no_problem(cluster: KubeServer, examine: Examine) -> None:
    cluster.denied |= set(RULES)
    _, table = examine("gpus=1")
    problems = [line for line in table.splitlines() if line.startswith("problem")]
    assert all(" names no registry " in line for line in problems), table  # this needs no right
    assert "unknown" in table.splitlines()[-1]


def test_editor_of_a_profile(cluster: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    set_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(cluster)
    cluster.add(
        launcher(namespace=PROFILE, endpoint="seaweedfs.kubeflow:9000"), quota({"pods": "9"}, namespace=PROFILE)
    )
    cluster.denied = {"list nodes", "list pods in *", "get endpoints in default"}
    cluster.denied |= {f"{right} in kubeflow" for right in OF_KFPS_NAMESPACE}
    code, table = examine("--namespace", PROFILE)
    assert code == 1  # only for the images, which no registry and no node is known to have
    assert {line.split()[1] for line in table.splitlines() if line.startswith("problem")} == {"images"}
    (line,) = [line for line in table.splitlines() if "this user may not" in line or "rights of this user" in line]
    assert line.startswith("unknown rights some checks are incomplete without these rights of this user: ")
    for right, checks in {**OF_KFPS_NAMESPACE, "list nodes": "nodes"}.items():
        where = "" if right == "list nodes" else " in namespace kubeflow"
        assert line.count(f"{right}{where} ({checks})") == 1, line
    assert "ok quota quota team has room for every step" in table
    assert {r.namespace for r in cluster.requests if r.resource in ("secrets", "resourcequotas", "limitranges")} == {
        PROFILE
    }


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (error(500, "etcd is away"), "unknown nodes the Kubernetes API answered 500: etcd is away -> try again later"),
        (error(401, "Unauthorized"), "problem nodes the Kubernetes API does not know this user (401) -> log in again"),
        (cut, "unknown nodes the Kubernetes API cannot be reached to ask http://127.0.0.1:"),
        (lambda handler: handler.reply(503, "no Status"), "unknown nodes the Kubernetes API answered 503: Service"),
    ],
    ids=["server-error", "unauthorized", "connection-cut", "not-a-status"],
)
def test_failed_check_does_not_stop_the_others(
    cluster: KubeServer, examine: Examine, fault: Answer, expected: str
) -> None:
    cluster.faults["list nodes"] = fault
    _, table = examine()
    assert expected in table
    assert "ok retries" in table
