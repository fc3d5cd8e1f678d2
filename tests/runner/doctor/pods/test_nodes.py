"""Doctor's check of the nodes: labels, resources and taints."""

from tests.runner.doctor.objects import TOLERATE_ALL, AssertFound, gpu_node, node
from tests.servers.kube_server import KubeServer


def test_cluster_without_nodes(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.remove("nodes", "worker")
    assert_found("problem nodes the cluster has no nodes -> add one")


def test_no_gpu(cluster: KubeServer, assert_found: AssertFound) -> None:
    assert_found(
        "problem nodes no node that step train may use offers 1 nvidia.com/gpu -> install the device plugin", "gpus=1"
    )


def test_too_few_gpus(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(gpu_node())
    assert_found(
        "problem nodes no node that step train may use offers 8 nvidia.com/gpu; the largest has 4 -> set gpus=4",
        "gpus=8",
    )


def test_gpu_of_another_kind(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(gpu_node())
    assert_found(
        "offers 1 amd.com/gpu -> set gpu_resource to one of nvidia.com/gpu, or", "gpus=1", "gpu_resource=amd.com/gpu"
    )


def test_no_node_with_the_labels(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(gpu_node())
    assert_found(
        "problem nodes no node has the labels nvidia.com/gpu.product=H100 that step train asks for "
        "-> change node_selector: nvidia.com/gpu.product is A100",
        "gpus=1",
        'node_selector={"nvidia.com/gpu.product": "H100"}',
    )


def test_taint_without_a_toleration(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(gpu_node())
    assert_found(
        "problem nodes every node for step train has a taint that it does not tolerate: "
        "nvidia.com/gpu=present:NoSchedule "
        '-> set tolerations=\'[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]\'',
        "gpus=1",
    )


def test_toleration_of_another_effect(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(gpu_node())
    assert_found(
        "does not tolerate: nvidia.com/gpu=present:NoSchedule",
        "gpus=1",
        'tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}]',
    )


def test_too_little_memory_for_training(cluster: KubeServer, assert_found: AssertFound) -> None:
    assert_found(
        "problem nodes no node that step train may use offers 64Gi memory; the largest has 32Gi -> set train_memory",
        "train_memory=64Gi",
    )


def test_too_little_memory_for_another_step(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(node("worker", memory="1Gi"))
    assert_found(
        "problem nodes no node that step evaluate may use offers 2Gi memory; the largest has 1Gi "
        "-> lower the step's resources in pipeline.py, or add a larger node"
    )


def test_unschedulable_node(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(node("worker", "node.kubernetes.io/unschedulable:NoSchedule"))
    assert_found("warning nodes every node for step train is out of service now (unschedulable)")


def test_taint_that_only_training_tolerates(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(node("worker", "team=other:NoExecute"))
    assert_found(
        "problem nodes every node for step evaluate has a taint that it does not tolerate: team=other:NoExecute "
        "-> add a node without taints for the other steps",
        TOLERATE_ALL,
    )
