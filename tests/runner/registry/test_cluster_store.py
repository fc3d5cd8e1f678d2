"""A store of the cluster: by the keys of a namespace and through the Kubernetes API, against a real S3 server."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from components.shared.core.errors import UserError
from components.shared.storage.client import Store
from runner.registry import models
from runner.registry.store import TOLD
from runner.verbs.parser import parse
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer, kube_server
from tests.servers.s3_server import KEY, SECRET, S3Server

pytestmark = pytest.mark.slow
INSIDE = "http://seaweedfs.kubeflow:9000"


def _meta(name: str, namespace: str, **labels: str) -> client.V1ObjectMeta:
    return client.V1ObjectMeta(name=name, namespace=namespace, labels=labels)


def _secret(namespace: str, name: str = "torch2kubeflow-s3", **values: str) -> client.V1Secret:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return client.V1Secret(metadata=_meta(name, namespace), data=data)


def _config(namespace: str, endpoint: str = INSIDE, **values: str) -> client.V1ConfigMap:
    data = {"AWS_ENDPOINT_URL_S3": endpoint, **values}
    return client.V1ConfigMap(metadata=_meta("torch2kubeflow-s3", namespace), data=data)


def _service(**spec: object) -> client.V1Service:
    given = {"selector": {"app": "seaweedfs"}, "ports": [client.V1ServicePort(port=9000, target_port=8333)], **spec}
    return client.V1Service(metadata=_meta("seaweedfs", "kubeflow"), spec=client.V1ServiceSpec(**given))


@pytest.fixture
def cluster(
    tmp_path: Path, server: S3Server, kfp_api: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KubeServer]:
    """A cluster with an S3 server that this machine reaches only through it, and keys in two namespaces."""
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    with kube_server() as found:
        found.write_kubeconfig(tmp_path / ".kube" / "config")
        pod = client.V1Pod(
            metadata=_meta("seaweedfs-0", "kubeflow", app="seaweedfs"), status=client.V1PodStatus(phase="Running")
        )
        found.add(_service(), pod)
        for namespace in ("kubeflow", "team-a"):
            keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": ""}
            found.add(_secret(namespace, **keys), _config(namespace))
        found.forwards["seaweedfs-0", 8333] = server.ports["s3.port"]
        yield found


def _models(*words: str) -> int:
    return models.handle(parse(["models", *words]))


@pytest.mark.parametrize("namespace", ["kubeflow", "team-a"])
def test_the_store_is_reached_through_the_kubernetes_api(
    cluster: KubeServer, uri: str, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if namespace != "kubeflow":
        monkeypatch.setenv("KFP_NAMESPACE", namespace)
    assert _models("--store", uri) == 0
    shown = capsys.readouterr()
    assert "has no models yet" in shown.out
    assert shown.err == f"note: with the keys of Secret torch2kubeflow-s3 in namespace {namespace}\n"
    assert {str(request) for request in cluster.requests} >= {"get secrets", "get configmaps", "get services"}
    assert {request.namespace for request in cluster.requests if request.resource == "secrets"} == {namespace}


def test_what_the_environment_describes_needs_no_cluster(
    cluster: KubeServer, store: Store, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    assert _models("--store", store.uri()) == 0
    assert not cluster.requests
    assert _models("--store", store.uri(), "--context", "loopback") == 0
    assert cluster.requests


def test_actions_take_the_options_too(cluster: KubeServer, uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _models("prune", "--store", uri, "--namespace", "team-a", "--dry-run") == 0
    assert "in namespace team-a" in capsys.readouterr().err
    with pytest.raises(UserError, match="--context and --namespace need a store; give --store"):
        _models("prune", "--namespace", "team-a")


def test_what_cannot_be_reached_or_read_is_named(cluster: KubeServer, uri: str) -> None:
    def refusal(*words: str) -> str:
        with pytest.raises(UserError) as refused:
            _models("--store", uri, *words)
        return str(refused.value)

    assert "no keys are in Secret other of namespace kubeflow" in refusal("--s3-secret", "other")
    cluster.add(_config("kubeflow", "http://storage.corp:9000"))
    assert "cannot be reached from this machine, and namespace corp has no Service storage" in refusal()
    cluster.add(_config("kubeflow", "http://seaweedfs:1"))
    assert "Service seaweedfs of namespace kubeflow has no pods at port 1" in refusal()
    cluster.add(_config("kubeflow"))
    cluster.objects["pods", "kubeflow", "seaweedfs-0"].status.phase = "Pending"
    assert "no pod app=seaweedfs runs in namespace kubeflow" in refusal()
    cluster.denied = {"get secrets"}
    assert "Kubernetes refuses to read Secret torch2kubeflow-s3 in namespace kubeflow (403 Forbidden)" in refusal()


def test_certificate_authority_of_the_config_map(cluster: KubeServer, server: S3Server, uri: str) -> None:
    """Its name is not in the certificate, so that only the reason for which it is refused is seen here."""
    cluster.add(_config("kubeflow", INSIDE.replace("http", "https"), **{"ca.crt": server.certificate.read_text()}))
    cluster.forwards["seaweedfs-0", 8333] = server.ports["s3.port.https"]
    with pytest.raises(UserError, match=r"not trusted \(Hostname mismatch"):
        _models("--store", uri)
