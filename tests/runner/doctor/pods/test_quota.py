"""Doctor's checks of ResourceQuotas and LimitRanges."""

from tests.runner.doctor.objects import TOLERATE_ALL, AssertFound, default_limits, gpu_node, limit_range, quota
from tests.servers.kube_server import KubeServer


def test_quota_below_a_steps_limit(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(quota({"limits.cpu": "3"}), default_limits())
    assert_found("problem quota step evaluate needs 4 limits.cpu, quota team allows 3 -> ask for less")


def test_quota_in_use(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(quota({"requests.memory": "16Gi"}, used={"requests.memory": "14Gi"}), default_limits())
    assert_found("warning quota step train needs 4Gi requests.memory, but 14Gi of 16Gi in quota team are in use")


def test_quota_of_gpus(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(quota({"requests.nvidia.com/gpu": "1"}), gpu_node())
    assert_found(
        "problem quota step train needs 2 requests.nvidia.com/gpu, quota team allows 1", "gpus=2", TOLERATE_ALL
    )


def test_quota_without_a_limit_range(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(quota({"cpu": "100", "limits.memory": "1Ti"}))
    assert_found("problem quota quota on cpu, limits.memory without a LimitRange: KFP's drivers")


def test_limit_range_below_a_limit(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(limit_range(max={"memory": "2Gi"}))
    assert_found("problem LimitRange step train has the memory limit 4Gi; the LimitRange allows 2Gi")


def test_limit_range_above_a_request(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(limit_range(min={"cpu": "200m"}))
    assert_found("problem LimitRange step resolve requests 100m cpu; the LimitRange requires 200m")


def test_limit_range_with_a_ratio(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(limit_range(max_limit_request_ratio={"cpu": "8"}))
    assert_found("problem LimitRange step resolve has cpu 100m to 1; the LimitRange allows a ratio of 8")
