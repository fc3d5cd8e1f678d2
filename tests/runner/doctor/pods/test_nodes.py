"""Doctor's check of the nodes: labels, taints, and room: now, when other pods have ended, or never."""

from tests.runner.doctor.objects import (
    TOLERATE_ALL,
    AssertFound,
    Examine,
    default_limits,
    gpu_node,
    node,
    other_pod,
)
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


def test_room_that_services_leave(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(node("worker", cpu="2", memory="8Gi"), other_pod("kfp", ends=False, cpu="900m", memory="1Gi"))
    code, table = examine()
    assert code == 1
    assert (
        "problem nodes no room for step train (2 cpu, 4Gi memory), even when other pods have ended; the largest that "
        "fits has 1100m cpu -> set train_cpu=1100m, or add a node"
    ) in table
    assert "\nok nodes room now for KFP's driver, step download, step evaluate, step export, step finish, " in table
    code, table = examine("train_cpu=1100m")
    assert code == 0
    assert "step train (1100m cpu, 4Gi memory) on 1 of 1 nodes, the largest that fits has 1100m cpu" in table


def test_room_when_others_have_ended(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(node("worker", cpu="4"), other_pod("run", ends=True, cpu="2500m"))
    cluster.add(other_pod("ended", ends=True, phase="Succeeded", cpu="1"))
    assert_found(
        "warning nodes no room for step train (2 cpu, 4Gi memory) before other pods have ended; the "
        "largest that fits has 1500m cpu -> set train_cpu=1500m, or wait for them"
    )


def test_steps_that_lack_the_same_are_one_finding(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(other_pod("run", ends=True, cpu="7500m"))
    assert_found(
        "warning nodes no room for step evaluate (1 cpu, 2Gi memory), step export (1 cpu, 2Gi memory), step preprocess "
        "(1 cpu, 2Gi memory) before other pods have ended; the largest that fits has 500m cpu -> lower the step's",
    )


def test_nodes_that_are_short_of_different_things(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(node("worker"), node("second"))
    cluster.add(other_pod("a", ends=True, cpu="7"), other_pod("b", ends=True, node="second", memory="30Gi"))
    assert_found("the largest that fits has 1 cpu or 2Gi memory -> set train_cpu=1, or set train_memory=2Gi, or wait")


def test_node_that_is_short_of_everything(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(other_pod("a", ends=True, cpu="7", memory="30Gi"))
    assert_found("the largest that fits has 1 cpu, 2Gi memory -> set train_cpu=1 train_memory=2Gi, or wait")


def test_node_with_too_many_pods(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(node("worker", pods="1"), other_pod("a", ends=True))
    assert_found(
        "warning nodes no room for step train (2 cpu, 4Gi memory) before other pods have ended; no "
        "smaller one would -> wait for them"
    )


def test_gpus_in_use(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(gpu_node(), other_pod("training", ends=True, node="gpu", **{"nvidia.com/gpu": "3"}))
    assert_found("the largest that fits has 1 nvidia.com/gpu -> set gpus=1, or wait for them", "gpus=2", TOLERATE_ALL)


def test_room_for_the_containers_beside_the_step(cluster: KubeServer, assert_found: AssertFound) -> None:
    cluster.add(node("worker", cpu="3"), default_limits(), other_pod("kfp", ends=False, cpu="1"))
    assert_found("no room for step train (2100m cpu, 4224Mi memory), even when other pods have ended; the largest that")
    assert_found("the largest that fits has 1900m cpu -> set train_cpu=1900m, or add a node")


def test_job_needs_room_for_all_its_nodes_at_once(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(node("worker", cpu="5"), node("second", cpu="3"), other_pod("kfp", ends=False, cpu="500m"))
    _, table = examine("nodes=4", graph="distributed")
    assert (
        "problem nodes no room for the job of 4 nodes (2 cpu, 4Gi memory each), even when other pods have ended; the "
        "largest that fits has nodes=3 -> set nodes=3, or add a node"
    ) in table
    _, table = examine("nodes=3", graph="distributed")
    assert "ok nodes room now for the job of 3 nodes (2 cpu, 4Gi memory each); for every other step" in table


def test_job_needs_room_for_the_step_that_waits(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(node("worker", cpu="4"))
    _, table = examine("nodes=2", graph="distributed")
    assert "the largest that fits has nodes=1 -> set nodes=1, or add a node" in table


def test_job_whose_single_node_is_too_large(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(other_pod("run", ends=True, cpu="7"))
    _, table = examine("nodes=2", graph="distributed")
    assert (
        "warning nodes no room for the job of 2 nodes (2 cpu, 4Gi memory each) before other pods have ended; "
        "the largest that fits has 1 cpu -> set train_cpu=1, or wait for them"
    ) in table


def test_room_without_the_right_to_see_other_pods(cluster: KubeServer, examine: Examine) -> None:
    cluster.denied.add("list pods")
    code, table = examine()
    assert code == 0
    assert "ok nodes room if nothing else runs for step train (2 cpu, 4Gi memory) on 1 of 1 nodes" in table
    assert 'list pods (nodes) -> ask for {apiGroups: [""], resources: ["pods"], verbs: ["list"]} in a Cluster' in table
