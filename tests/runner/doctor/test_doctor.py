"""The verb doctor: its table and exit code, and what it checks without KFP or a cluster."""

from pathlib import Path

import pytest

import pipeline
from components import steps
from components.shared.core.errors import UserError
from runner.doctor import doctor
from tests.runner.doctor.objects import CLOSED_S3, PROFILE, STANDALONE, Examine, make_profile, pods_with
from tests.runner.verbs import answered, run_verb
from tests.servers.image_registry import image_registry
from tests.servers.kube_server import KubeServer


def test_healthy_cluster_has_no_problem(cluster: KubeServer, examine: Examine) -> None:
    code, table = examine()
    assert code == 0, table
    assert "0 problems, 0 warnings, 1 unknown" in table
    assert "ok KFP KFP 2.17.0 answers, standalone" in table
    unreachable = f"{CLOSED_S3} cannot be reached from this machine"
    assert f"unknown S3 s3://mlpipeline/v2/artifacts of KFP's launcher: {unreachable}" in table
    assert (
        "ok nodes room now for step train (2 cpu, 4Gi memory) on 1 of 1 nodes, the largest that fits has 8 cpu" in table
    )
    for name in doctor.CHECKS:
        assert f" {name} " in table


@pytest.mark.parametrize(
    ("graph", "words", "pod"),
    [("sweep", [], "training pod"), ("prediction", ["store=s3://bucket/team"], "pod of step predict")],
)
def test_other_graphs_have_no_problem_either(
    cluster: KubeServer, examine: Examine, graph: str, words: list[str], pod: str
) -> None:
    code, table = examine(*words, graph=graph)
    assert code == 0, table
    assert "0 problems, 0 warnings, " in table
    assert f"ok admission the cluster would admit the {pod} (checked by a dry run)" in table
    assert ("room now for every step\n" in table) == (graph == "prediction")


def test_nothing_is_changed(cluster: KubeServer, examine: Examine) -> None:
    examine()
    assert cluster.requests
    assert not [request for request in cluster.requests if request.verb not in ("get", "list", "create")]


def test_refused_parameter(cluster: KubeServer) -> None:
    with pytest.raises(UserError, match="gpus=lots is not accepted"):
        run_verb(doctor, "gpus=lots", pipeline=pipeline.training)


def test_expired_login_skips_the_checks_of_the_cluster(cluster: KubeServer, examine: Examine) -> None:
    cluster.token = "another"
    code, table = examine()
    assert code == 1
    assert table.splitlines()[1].startswith("problem Kubernetes the Kubernetes API does not know this user (401)")
    assert {line.split()[1] for line in table.splitlines()[2:-2]} == {"images"}


def test_only_kfp_and_images_without_a_kubeconfig(tmp_path: Path, cluster: KubeServer, examine: Examine) -> None:
    (tmp_path / ".kube" / "config").unlink()
    code, table = examine()
    assert code == 1
    kfp, kubernetes, *images = table.splitlines()[:-2]
    assert kfp.startswith("ok KFP")
    assert kubernetes.startswith("unknown Kubernetes no cluster is known")
    assert images == [
        f"problem images image {name} names no registry -> make push REGISTRY=..., which records its digest"
        for name in (steps.DATA_IMAGE, steps.TORCH_IMAGE)
    ]


def test_only_images_with_the_cluster_out_of_reach(
    tmp_path: Path, cluster: KubeServer, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / ".kube" / "config"
    kubeconfig.write_text(kubeconfig.read_text().replace(cluster.url, "http://127.0.0.1:1"))
    with image_registry({"team/data/manifests/1"}) as host:
        image = f"{host}/team/data:1"
        pods = pods_with(image)
        monkeypatch.setattr(doctor, "pods_of", lambda *_: pods)
        code, table = examine()
    assert code == 0
    assert table.splitlines()[2:-2] == [
        f"ok images image {image} can be pulled; checked from here, without the cluster's pull secrets"
    ]
    assert "unknown Kubernetes the Kubernetes API cannot be reached to ask http://127.0.0.1:1 (" in table
    assert "Connection refused) -> check the kubeconfig's context" in table


@pytest.mark.slow  # kfp.Client retries, with pauses
def test_kfp_out_of_reach_is_a_problem(cluster: KubeServer, examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    make_profile(cluster)
    monkeypatch.setenv("KFP_NAMESPACE", PROFILE)
    code, table = examine("--host", "http://127.0.0.1:1")
    assert code == 1
    assert table.splitlines()[0].startswith("problem KFP http://127.0.0.1:1 cannot be reached")
    assert "ok namespace ada is a Profile" in table


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "ok namespace ada is a Profile"),
        (("--namespace", STANDALONE), "ok namespace kubeflow is KFP's own"),
    ],
    ids=["own", "option"],
)
def test_namespace_in_a_pod(
    cluster: KubeServer,
    examine: Examine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
    expected: str,
) -> None:
    make_profile(cluster)
    (tmp_path / "namespace").write_text(PROFILE)
    monkeypatch.setattr("runner.cluster.options.POD_NAMESPACE", tmp_path / "namespace")
    assert expected in examine("--host", "no-scheme", *words)[1]


def test_the_document_has_every_finding(cluster: KubeServer, capsys: pytest.CaptureFixture[str]) -> None:
    document = answered(doctor, pipeline=pipeline.training)
    assert isinstance(document, doctor.DoctorDocument)
    shown = capsys.readouterr().out
    assert {"KFP", "Kubernetes", "ConfigMap"} <= {finding.check for finding in document.findings}
    assert sum(finding.state == "ok" for finding in document.findings) == shown.count("\nok ") + shown.startswith("ok ")
