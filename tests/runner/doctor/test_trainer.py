"""Doctor's check of Kubeflow Trainer, which training on many nodes needs."""

import pytest

from tests.runner.doctor.objects import Examine
from tests.servers.kube_server import KubeServer


@pytest.fixture
def trainer(cluster: KubeServer) -> KubeServer:
    """The cluster, with Kubeflow Trainer and our TrainingRuntime."""
    cluster.custom["trainingruntimes"] = [{"metadata": {"name": "torch2kubeflow"}}]
    return cluster


def test_trainer_is_not_installed(cluster: KubeServer, examine: Examine) -> None:
    code, table = examine(graph="distributed")
    assert code == 1
    assert (
        "problem Trainer Kubeflow Trainer 2 is not installed in this cluster -> install version 2.2 or newer" in table
    )


def test_missing_training_runtime(cluster: KubeServer, examine: Examine) -> None:
    cluster.custom["trainingruntimes"] = []
    _, table = examine(graph="distributed")
    remedy = "kubectl apply -n kubeflow -k manifests/trainer"
    assert f"problem Trainer no TrainingRuntime torch2kubeflow in namespace kubeflow -> {remedy}" in table


def test_missing_right_to_jobs(trainer: KubeServer, examine: Examine) -> None:
    trainer.account_lacks = {"delete trainjobs"}
    code, table = examine(graph="distributed")
    assert code == 1
    assert "problem Trainer service account pipeline-runner may not delete trainjobs -> add" in table


def test_many_nodes_with_all_that_they_need(trainer: KubeServer, examine: Examine) -> None:
    _, table = examine(graph="distributed")
    assert "ok Trainer Kubeflow Trainer and TrainingRuntime torch2kubeflow are installed" in table
    assert "can run step train-distributed" in table
    assert "would admit the training pod" in table


def test_other_graphs_do_not_need_trainer(cluster: KubeServer, examine: Examine) -> None:
    assert "ok Trainer this graph does not need Kubeflow Trainer" in examine()[1]


def test_many_nodes_for_another_graph(cluster: KubeServer, examine: Examine) -> None:
    _, table = examine("nodes=2")
    assert "problem Trainer nodes=2, but this graph trains on one node -> give --graph distributed" in table
