"""manifests/serving: valid, without keys, and with all that the verb deploy asks for, and no more."""

import json
import subprocess
from functools import cache
from types import SimpleNamespace

import kubernetes_validate
import pytest
import yaml
from kubernetes import client

from components.shared.serving.inference_service import LABELS, SERVICE_ACCOUNT, predictor_of
from components.shared.serving.kserve import ENDPOINT_ANNOTATION
from runner.doctor.network import End, Flow, allows
from tests.manifests.manifests import MANIFESTS, Object, needs_kubectl, render
from tests.manifests.test_manifests import LAST_THREE
from tests.serving.conftest import RULES, Cluster, cluster

pytestmark = needs_kubectl
__all__ = ["cluster"]  # a fixture
GROUPS = {
    "inferenceservices": "serving.kserve.io",
    "servingruntimes": "serving.kserve.io",
    "httproutes": "gateway.networking.k8s.io",
    "leases": "coordination.k8s.io",
}
OF_THE_CLUSTER = {("get", "namespaces"), ("get", "clusterservingruntimes"), ("list", "clusterservingruntimes")}


@cache
def serving() -> dict[str, Object]:
    """The objects of manifests/serving by kind, in the namespace team-a."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(MANIFESTS / "serving")], capture_output=True, text=True, check=True
    )
    found = {thing["kind"]: thing for thing in yaml.safe_load_all(done.stdout)}
    for thing in found.values():
        thing["metadata"]["namespace"] = "team-a"
    return found


@pytest.mark.parametrize("version", LAST_THREE)
def test_the_objects_are_valid_and_have_names_of_ours(version: str) -> None:
    assert serving().keys() == {"Secret", "ServiceAccount", "Role", "NetworkPolicy"}
    for thing in serving().values():
        assert kubernetes_validate.validate(thing, version, strict=True) == version
        assert thing["metadata"]["name"].startswith("torch2kubeflow-")


def test_models_are_loaded_from_the_store_of_the_runs() -> None:
    secret, account = serving()["Secret"], serving()["ServiceAccount"]
    assert "data" not in secret and "stringData" not in secret
    assert account["secrets"] == [{"name": secret["metadata"]["name"]}] and not account["automountServiceAccountToken"]
    assert {secret["metadata"]["name"], account["metadata"]["name"]} == {SERVICE_ACCOUNT}
    (config,) = [one for one in render("multi-user") if one["kind"] == "ConfigMap"]
    annotations = secret["metadata"]["annotations"]
    scheme = {"0": "http", "1": "https"}[annotations["serving.kserve.io/s3-usehttps"]]
    assert f"{scheme}://{annotations[ENDPOINT_ANNOTATION]}" == config["data"]["AWS_ENDPOINT_URL_S3"]
    assert annotations["serving.kserve.io/s3-region"] == config["data"]["AWS_REGION"]


def test_the_role_has_what_deploys_ask_for_and_no_more(cluster: Cluster) -> None:
    """They are a first one, one with a canary, one that fails, and one after another was killed."""
    cluster.deploy(1)
    lease = "/apis/coordination.k8s.io/v1/namespaces/serve/leases/shades-deploy"
    cluster.server.add(lease, spec={"holderIdentity": "", "renewTime": "2026-01-01T00:00:00.000000Z"})
    cluster.deploy(2)
    cluster.kserve.check_namespace("kubeflow")
    cluster.server.objects.pop(cluster.path)
    cluster.versions[1].server.bias = 1
    for rules in (RULES, RULES._replace(runtime="other")):
        with pytest.raises(ValueError, match=r"smoke test|neither a ServingRuntime"):
            cluster.deploy(1, rules)
    asked = {(verb, GROUPS.get(name, ""), name) for verb, name in cluster.server.asked - OF_THE_CLUSTER}
    granted = {
        (verb, group, name)
        for rule in serving()["Role"]["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
    }
    assert granted == asked | {(verb, "", "pods/portforward") for verb in ("get", "create")}


POLICIES = "NetworkPolicy"
MODEL = End("model", "team-a", {}, LABELS | {"app": "isvc.mnist-v1-predictor"})


def _namespace(name: str, **labels: str) -> End:
    return End(name, name, {"kubernetes.io/metadata.name": name}, labels)


def _address(ip: str) -> End:
    return End(ip, "", {}, {}, ip)


def _allowed(source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    document = json.dumps({"items": [serving()[POLICIES]]})
    policies = client.ApiClient().deserialize(SimpleNamespace(data=document), "V1NetworkPolicyList").items
    return allows(policies, source, Flow(target, port, protocol))


def test_gateways_and_runs_reach_a_model_and_nobody_else() -> None:
    run = {"app.kubernetes.io/part-of": "torch2kubeflow"}
    for name in ("kserve", "envoy-gateway-system", "istio-system", "knative-serving"):
        assert _allowed(_namespace(name), MODEL, 8080) and _allowed(_namespace(name), MODEL, 9000), name
        assert not _allowed(_namespace(name), MODEL, 22)
    assert _allowed(End("run", "team-a", {}, run), MODEL, 8080)
    assert _allowed(_namespace("kubeflow", **run), MODEL, 8080)
    for stranger in (_namespace("team-b", **run), _namespace("kubeflow", app="mysql"), _address("10.0.0.10")):
        assert not _allowed(stranger, MODEL, 8080), stranger.name


def test_a_model_reaches_the_store_and_no_more() -> None:
    assert _allowed(MODEL, _namespace("kube-system", **{"k8s-app": "kube-dns"}), 53, "UDP")
    assert _allowed(MODEL, _namespace("kubeflow", app="seaweedfs"), 8333)
    assert _allowed(MODEL, _address("52.92.1.1"), 443)
    assert not _allowed(MODEL, _namespace("kubeflow", app="ml-pipeline"), 8888)
    assert not _allowed(MODEL, _address("169.254.169.254"), 443)


def test_other_pods_of_the_namespace_are_left_alone() -> None:
    other = End("notebook", "team-a", {}, {"app": "notebook"})
    assert _allowed(_namespace("team-b"), other, 8080) and _allowed(other, _address("8.8.8.8"), 53)


def test_the_predictor_of_a_version_lies_in_its_folder() -> None:
    found = predictor_of("s3://b/team/models/mnist/versions/7", 7)
    assert (found.name, found.storage_uri, found.version) == ("v7", "s3://b/team/models/mnist/versions/7/serving", 7)
