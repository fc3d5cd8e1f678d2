"""A cluster with KServe, and three small models with a model server each."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import pytest
from kubernetes import client

from components.shared.serving import rollout
from components.shared.serving.inference_service import GROUP, PLURAL, RUNTIME, SERVICE_ACCOUNT, VERSION, Predictor
from components.shared.serving.kserve import Kserve, Pods
from components.shared.serving.kubernetes_api import KubernetesApi
from components.shared.serving.rollout import Rules, Test
from components.shared.serving.smoke_test import SmokeTest, smoke_test
from tests.servers.kserve.model_server import ModelServer, model_server
from tests.servers.kserve.server import KserveServer, kserve_server
from tests.serving.small_models import NAME, document_of, samples_of, write_onnx

NAMESPACE = "serve"
STORE = "s3://bucket/team"
RULES = Rules(shares=(10, 50), pause=0, timeout=20, hold=False)


class Served(NamedTuple):
    """A version that may be served, its model server, and its smoke test."""

    predictor: Predictor
    server: ModelServer
    test: Test


class Cluster(NamedTuple):
    """What a test acts on."""

    server: KserveServer
    kserve: Kserve
    versions: dict[int, Served]
    path: str  # of the InferenceService

    def deploy(self, version: int, rules: Rules = RULES, tested: bool = True) -> SmokeTest | None:
        """Deploy a version as a step of the cluster would."""
        served = self.versions[version]
        return rollout.deploy(self.kserve, NAME, served.predictor, rules, served.test if tested else None)

    @property
    def spec(self) -> dict[str, object]:
        """The present spec: the version that serves, and the canaries with their shares."""
        spec = self.server.objects[self.path]["spec"]
        entries = [(one["predictor"]["name"], one["trafficPercent"]) for one in spec.get("canary") or []]
        return {"stable": spec["predictor"]["name"], "canary": entries}


def add_namespace(server: KserveServer, name: str = NAMESPACE, **labels: str) -> None:
    """Add a namespace with what manifests/serving has."""
    root = f"/api/v1/namespaces/{name}"
    server.add(root, metadata={"name": name, "labels": labels})
    annotations = {"serving.kserve.io/s3-endpoint": "seaweedfs.kubeflow:9000"}
    secret = {"name": SERVICE_ACCOUNT, "labels": {}, "annotations": annotations}
    server.add(f"{root}/secrets/{SERVICE_ACCOUNT}", metadata=secret)
    server.add(f"{root}/serviceaccounts/{SERVICE_ACCOUNT}", secrets=[{"name": SERVICE_ACCOUNT}])


def kserve_of(server: KserveServer, namespace: str = NAMESPACE) -> Kserve:
    """KServe as a client of the server finds it."""
    configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    return Kserve(KubernetesApi(client.ApiClient(configuration)), namespace)


def _test(server: KserveServer, version: int, samples: object, pods: Pods) -> SmokeTest:
    """Test a version through the pod that its Service leads to."""
    root = f"/api/v1/namespaces/{pods.namespace}/pods"
    (pod,) = [one for one in server.answer("GET", root, {"labelSelector": pods.selector}, None)["items"]]
    port = server.forward_to(f"{root}/{pod['metadata']['name']}")
    return smoke_test(partial(HTTPConnection, "127.0.0.1", port), document_of(version), samples)  # type: ignore[arg-type]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster with KServe in mode Standard, and versions 1, 2 and 3 of a model in a store that it reaches."""
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0)
    with ExitStack() as stack:
        server = stack.enter_context(kserve_server())
        add_namespace(server)
        server.add_runtime(RUNTIME)
        versions = {}
        for number in (1, 2, 3):
            onnx = write_onnx(tmp_path / f"{number}.onnx", number)
            model = stack.enter_context(model_server(NAME, onnx))
            predictor = Predictor(f"v{number}", f"{STORE}/models/{NAME}/versions/{number}/serving")
            server.models[predictor.storage_uri] = model.server_port
            versions[number] = Served(predictor, model, partial(_test, server, number, samples_of(onnx)))
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{PLURAL}/{NAME}"
        yield Cluster(server, kserve_of(server), versions, path)
