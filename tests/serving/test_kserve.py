"""What a cluster must have to serve: pytest tests/serving/test_kserve.py"""

from typing import Any

import pytest

from components.shared.core.errors import UserError
from components.shared.serving import rollout, standard
from components.shared.serving.inference_service import RUNTIME, SERVICE_ACCOUNT, Predictor, check_name
from components.shared.serving.kserve import Service
from tests.serving.conftest import NAMESPACE, RULES, Cluster, add_namespace, kserve_of
from tests.serving.small_models import NAME

STATUS = {"name": "c", "lastState": {"terminated": {"exitCode": 1, "message": "loading\nno space left\n"}}}
PULL = {"reason": "ImagePullBackOff", "message": "no such image"}


def refusal(call: object, *arguments: object) -> str:
    with pytest.raises(UserError) as refused:
        call(*arguments)  # type: ignore[operator]
    return str(refused.value)


def test_the_mode_is_told_by_what_the_cluster_has(cluster: Cluster) -> None:
    assert cluster.kserve.find_mode(None) == "standard"
    assert "no Knative Serving; leave --mode knative out" in refusal(cluster.kserve.find_mode, "knative")
    cluster.server.groups.append("serving.knative.dev")
    assert (cluster.kserve.find_mode(None), cluster.kserve.find_mode("standard")) == ("knative", "standard")
    cluster.server.groups.remove("serving.kserve.io")
    assert refusal(cluster.kserve.find_mode, None).startswith("KServe is not installed in this cluster; install")


@pytest.mark.parametrize("is_lenient", [False, True], ids=["strict", "lenient"])
def test_an_older_standard_mode_is_refused_in_one_line(cluster: Cluster, is_lenient: bool) -> None:
    cluster.server.is_old, cluster.server.is_lenient = True, is_lenient
    text = refusal(cluster.deploy, 1)
    assert text == (
        "this KServe has no canaries in its mode Standard, which came with version 0.20; "
        "upgrade KServe to 0.20 or newer, or install Knative Serving and deploy with --mode knative"
    )
    assert cluster.path not in cluster.server.objects


@pytest.mark.slow
def test_a_canary_that_kserve_drops_in_silence_is_noticed(cluster: Cluster) -> None:
    cluster.deploy(1)
    cluster.server.is_old = cluster.server.is_lenient = True
    assert refusal(cluster.deploy, 2).startswith("this KServe has no canaries in its mode Standard")


def test_a_missing_runtime_is_named_with_those_that_fit(cluster: Cluster) -> None:
    del cluster.server.objects[f"/apis/serving.kserve.io/v1alpha1/clusterservingruntimes/{RUNTIME}"]
    cluster.server.add_runtime("ours", NAMESPACE)
    cluster.server.add_runtime("sklearn", supportedModelFormats=[{"name": "sklearn"}])
    text = refusal(cluster.deploy, 1)
    assert f"neither a ServingRuntime {RUNTIME} in namespace serve nor a ClusterServingRuntime" in text
    assert text.endswith("with --runtime (ours)") and cluster.path not in cluster.server.objects
    rules = RULES._replace(runtime="sklearn")
    assert "ClusterServingRuntime sklearn does not serve onnx by protocol v2" in refusal(cluster.deploy, 1, rules)
    cluster.server.add_runtime("ours", NAMESPACE, disabled=True)
    assert "ServingRuntime ours is disabled" in refusal(cluster.deploy, 1, RULES._replace(runtime="ours"))


def test_a_namespace_lacks_what_models_are_loaded_with(cluster: Cluster) -> None:
    remedy = "; kubectl apply -n serve -k manifests/serving, and fill the Secret as docs/serving.md says"
    root = f"/api/v1/namespaces/{NAMESPACE}"
    for plural, kind in (("secrets", "Secret"), ("serviceaccounts", "ServiceAccount")):
        del cluster.server.objects[f"{root}/{plural}/{SERVICE_ACCOUNT}"]
        text = refusal(cluster.kserve.check_namespace, "kubeflow")
        assert text.startswith(f"there is no {kind} {SERVICE_ACCOUNT} in namespace serve") and text.endswith(remedy)
    missing = kserve_of(cluster.server, "nowhere")
    assert (
        refusal(missing.check_namespace, "kubeflow")
        == "there is no namespace nowhere; kubectl create namespace nowhere"
    )


@pytest.mark.parametrize(
    ("namespace", "labels", "is_noted"),
    [
        ("other", {}, True),
        ("team-a", {"app.kubernetes.io/part-of": "kubeflow-profile"}, False),
        ("kubeflow", {}, False),
    ],
)
def test_kfps_store_lets_in_profiles_and_its_own(
    cluster: Cluster, namespace: str, labels: dict[str, str], is_noted: bool
) -> None:
    add_namespace(cluster.server, namespace, **labels)
    found = kserve_of(cluster.server, namespace)
    found.check_namespace("kubeflow")
    told = [
        f"kubectl label namespace {namespace} app.kubernetes.io/part-of=kubeflow-profile" in one for one in found.notes
    ]
    assert told == [True] * is_noted


def test_kserve_does_not_serve_beside_a_control_plane(cluster: Cluster) -> None:
    add_namespace(cluster.server, "kubeflow", **{"control-plane": "kubeflow"})
    text = refusal(kserve_of(cluster.server, "kubeflow").check_namespace, "kubeflow")
    assert "loads no model in namespace kubeflow, which has the label control-plane" in text


def test_what_may_not_be_read_is_noted(cluster: Cluster) -> None:
    cluster.server.denied |= {"get namespaces"}
    cluster.kserve.check_namespace("kubeflow")
    assert len(cluster.kserve.notes) == 2 and all("is not known" in one for one in cluster.kserve.notes)


def test_a_right_that_is_missing_is_named(cluster: Cluster) -> None:
    cluster.server.denied |= {"create inferenceservices"}
    text = refusal(cluster.deploy, 1)
    assert 'cannot create resource "inferenceservices"' in text
    assert text.endswith("; grant this right: manifests/serving/rbac.yaml has a Role with all that deploy needs")
    cluster.server.denied |= {"create leases"}
    assert "refuses to create leases of namespace serve shades-deploy (403)" in refusal(cluster.deploy, 1)


@pytest.mark.parametrize(("name", "reason"), [("5digits", "wants a letter first"), ("d" * 60, "shorter model_name")])
def test_a_name_that_kserve_does_not_take_is_refused(name: str, reason: str) -> None:
    assert reason in refusal(check_name, name, Predictor("v1", "s3://b/models/m/versions/1/serving"))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"containerStatuses": [STATUS | {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}, "c: no space left"),
        ({"containerStatuses": [STATUS | {"state": {"running": {}}}]}, ""),
        ({"initContainerStatuses": [STATUS | {"state": {"terminated": {"exitCode": 0}}}]}, ""),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": PULL}}]}, "c: ImagePullBackOff: no such image"),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}, "0/1 nodes"),
    ],
)
def test_pods_tell_why_they_do_not_serve(cluster: Cluster, status: dict[str, Any], reason: str) -> None:
    cluster.deploy(1)
    pod = cluster.server.objects["/api/v1/namespaces/serve/pods/shades-v1-predictor-0"]
    pod["status"] = status
    found = cluster.server.objects[cluster.path]
    told = Service(cluster.kserve, NAME).why_pods_wait(standard, found, cluster.versions[1].predictor)
    assert told == reason


def test_there_may_be_nothing_to_take_back(cluster: Cluster) -> None:
    text = refusal(rollout.roll_back, cluster.kserve, NAME, RULES)
    assert text == "there is no InferenceService shades of namespace serve; see --status, and --serving-namespace"
