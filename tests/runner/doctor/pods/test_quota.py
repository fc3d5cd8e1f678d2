"""Doctor's checks of ResourceQuotas and LimitRanges."""

from tests.runner.doctor.objects import (
    TOLERATE_ALL,
    AssertFound,
    Examine,
    argo,
    default_limits,
    gpu_node,
    limit_range,
    quota,
)
from tests.servers.kube_server import KubeServer


def test_quota_below_a_steps_limit(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(quota({"limits.cpu": "3"}), default_limits())
    # Argo's container beside the step's has the default of the LimitRange, 1.
    assert_found("problem quota step evaluate needs 5 limits.cpu, quota team allows 3 -> ask for less")


def test_quota_in_use(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(quota({"requests.memory": "16Gi"}, used={"requests.memory": "14Gi"}), default_limits())
    assert_found("warning quota step train needs 4224Mi requests.memory, but 14Gi of 16Gi in quota team are in use")


def test_quota_of_gpus(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(quota({"requests.nvidia.com/gpu": "1"}), gpu_node())
    assert_found(
        "problem quota step train needs 2 requests.nvidia.com/gpu, quota team allows 1", "gpus=2", TOLERATE_ALL
    )


def test_quota_without_a_limit_range(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(quota({"cpu": "100", "limits.memory": "1Ti"}))
    assert_found(
        "problem quota quota on cpu, limits.memory, which refuses pods with containers that ask for none: Argo's "
        "executor -> add a LimitRange with default and defaultRequest for cpu and memory"
    )


def test_argo_may_need_no_limit_range(cluster: KubeServer, examine: Examine) -> None:
    amounts = {"cpu": "50m", "memory": "64Mi"}
    cluster.add(quota({"cpu": "100", "limits.memory": "1Ti"}))
    cluster.add(argo("Always", resources={"requests": amounts, "limits": amounts}))
    code, table = examine()
    assert code == 0, table
    assert "ok quota quota team has room for every step" in table


def test_quota_of_a_job_counts_all_its_nodes(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(quota({"requests.cpu": "5", "pods": "2"}), default_limits())
    _, table = examine("nodes=3", graph="distributed")
    assert "problem quota the job of 3 nodes needs 6200m requests.cpu, quota team allows 5" in table
    assert "problem quota the job of 3 nodes needs 4 pods, quota team allows 2" in table


def test_limit_range_below_a_limit(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(limit_range(max={"memory": "2Gi"}))
    assert_found("problem LimitRange step train has the memory limit 4Gi; the LimitRange allows 2Gi")


def test_limit_range_above_a_request(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(limit_range(min={"cpu": "200m"}))
    _, table = examine()
    change = "-> change train_cpu, train_memory or gpus"
    assert f"problem LimitRange step resolve requests 100m cpu; the LimitRange requires 200m {change}" in table
    for who in ("KFP's driver", "KFP's launcher"):
        line = (
            f"problem LimitRange {who} requests 100m cpu; the LimitRange requires 200m -> have the LimitRange changed"
        )
        assert table.count(line) == 1


def test_limit_range_with_a_ratio(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(limit_range(max_limit_request_ratio={"cpu": "8"}, default={"cpu": "1"}))
    assert_found("problem LimitRange step resolve has cpu 100m to 1; the LimitRange allows a ratio of 8")


def test_ratio_of_the_drivers_memory(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(limit_range(max_limit_request_ratio={"memory": "6"}, default={"memory": "512Mi"}))
    _, table = examine()
    assert table.count("\nproblem LimitRange") == 1
    assert "problem LimitRange KFP's driver has memory 64Mi to 512Mi; the LimitRange allows a ratio of 6" in table


def test_ratio_without_a_default_refuses_argos_containers(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(limit_range(max_limit_request_ratio={"memory": "9"}))
    assert_found(
        "problem LimitRange Argo's executor lacks a memory request or limit; the LimitRange has a ratio and requires "
        "both -> have the LimitRange changed, or executor.resources set in workflow-controller-configmap"
    )


def test_maximum_of_a_pod_counts_all_its_containers(cluster: KubeServer, assert_found: AssertFound) -> None:
    amounts = {"cpu": "500m", "memory": "512Mi"}
    cluster.add(
        limit_range("Pod", max={"cpu": "4"}), argo("Always", resources={"requests": amounts, "limits": amounts})
    )
    assert_found("problem LimitRange step evaluate has the cpu limit 4500m; the LimitRange allows 4")


def test_maximum_of_a_pod_wants_a_limit_in_each(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(limit_range("Pod", max={"nvidia.com/gpu": "1"}))
    assert_found("problem LimitRange KFP's driver has no nvidia.com/gpu limit; the LimitRange allows 1")
