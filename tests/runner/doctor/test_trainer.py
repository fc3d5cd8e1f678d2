"""Doctor's checks of Kubeflow Trainer, which training on many nodes needs, and of Katib."""

import pytest

from tests.runner.doctor.objects import PROFILE, Examine, katib, make_profile, set_version, trainer_version
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer


@pytest.fixture
def trainer(cluster: KubeServer) -> KubeServer:
    """The cluster, with Kubeflow Trainer and our TrainingRuntime."""
    cluster.custom["trainingruntimes"] = [{"metadata": {"name": "torch2kubeflow"}}]
    cluster.add(trainer_version("v2.3.0"))
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


def test_missing_rights_to_jobs_are_one_problem(trainer: KubeServer, examine: Examine) -> None:
    trainer.account_lacks = {"create trainjobs", "list trainjobs", "delete trainjobs", "get trainingruntimes"}
    code, table = examine(graph="distributed")
    assert code == 1
    (line,) = [line for line in table.splitlines() if line.startswith("problem Trainer")]
    assert line == (
        "problem Trainer service account pipeline-runner may not create, list or delete trainjobs, "
        "nor get trainingruntimes -> kubectl apply -k manifests/overlays/standalone"
    )


def test_a_profile_has_the_role_from_trainer(trainer: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    set_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(trainer)
    trainer.account_lacks = {"delete trainjobs"}
    _, table = examine("--namespace", PROFILE, graph="distributed")
    assert (
        "problem Trainer service account default-editor may not delete trainjobs "
        "-> have the cluster's owner apply Trainer's overlay kubeflow-platform"
    ) in table


def test_many_nodes_with_all_that_they_need(trainer: KubeServer, examine: Examine) -> None:
    _, table = examine(graph="distributed")
    assert "ok Trainer Kubeflow Trainer and TrainingRuntime torch2kubeflow are installed" in table
    assert "ok nodes room now for the job of 1 node (2 cpu, 4Gi memory each); for every other step" in table
    assert "would admit the training pod" in table


@pytest.mark.parametrize(
    ("version", "namespace", "expected"),
    [
        ("v2.3.0", "kubeflow-system", "ok Trainer Kubeflow Trainer is v2.3.0"),
        ("2.2.0-rc.0", "kubeflow", "ok Trainer Kubeflow Trainer is 2.2.0-rc.0"),
        (
            "v2.1.0",
            "kubeflow",
            "problem Trainer Kubeflow Trainer is v2.1.0; jobs have fields that came with 2.2 -> upgr",
        ),
        (
            "",
            "kubeflow-system",
            "unknown Trainer the version of Kubeflow Trainer is not known: no ConfigMap",
        ),
    ],
)
def test_version_of_trainer(trainer: KubeServer, examine: Examine, version: str, namespace: str, expected: str) -> None:
    trainer.remove("configmaps", "kubeflow-trainer-public")
    trainer.add(trainer_version(version, namespace))
    assert expected in examine(graph="distributed")[1]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("katib:v0.15.0", "warning Katib Katib is katib:v0.15.0; manifests/katib needs 0.16 or newer -> upgrade Katib"),
        ("r.io/katib:v0.19.0@sha256:1", "ok Katib Katib is r.io/katib:v0.19.0@sha256:1"),
        ("r.io:5000/katib@sha256:1", "ok Katib Katib is r.io:5000/katib@sha256:1"),
    ],
)
def test_version_of_katib(cluster: KubeServer, examine: Examine, image: str, expected: str) -> None:
    cluster.add(katib(image))
    assert expected in examine()[1]


def test_katib_is_not_installed(cluster: KubeServer, examine: Examine) -> None:
    assert "ok Katib no Katib in namespace kubeflow; only manifests/katib needs it" in examine()[1]


def test_other_graphs_do_not_need_trainer(cluster: KubeServer, examine: Examine) -> None:
    assert "ok Trainer this graph does not need Kubeflow Trainer" in examine()[1]


def test_many_nodes_for_another_graph(cluster: KubeServer, examine: Examine) -> None:
    _, table = examine("nodes=2")
    assert "problem Trainer nodes=2, but this graph trains on one node -> give --graph distributed" in table
