"""Doctor's check of KServe, which only the verb deploy needs."""

from typing import Any

import pytest
from kubernetes import client

from components.shared.serving.inference_service import RUNTIME, SERVICE_ACCOUNT
from runner.doctor.kserve import KEYS
from tests.runner.doctor.objects import (
    PROFILE,
    PROFILE_LABELS,
    STANDALONE,
    Examine,
    make_profile,
    namespace,
    secret,
    service_account,
    set_version,
)
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer


def serving_secret(place: str, *keys: str) -> client.V1Secret:
    found = secret(SERVICE_ACCOUNT, place, **dict.fromkeys(keys, "value"))
    found.metadata.annotations = {"serving.kserve.io/s3-endpoint": "seaweedfs.kubeflow:9000"}
    return found


def runtime(name: str, model_format: str = "onnx") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"supportedModelFormats": [{"name": model_format}], "protocolVersions": ["v2"]},
    }


def install(cluster: KubeServer, place: str, *runtimes: dict[str, Any]) -> None:
    """Install KServe, and manifests/serving in a namespace."""
    cluster.custom |= {"inferenceservices": [], "servingruntimes": [], "clusterservingruntimes": [*runtimes]}
    cluster.add(service_account(SERVICE_ACCOUNT, place), serving_secret(place, *KEYS))


def findings(examine: Examine, *words: str) -> list[str]:
    return [line for line in examine(*words)[1].splitlines() if " KServe " in line]


def test_kserve_is_needed_by_no_run(cluster: KubeServer, examine: Examine) -> None:
    assert findings(examine) == ["ok KServe no KServe in this cluster; only the verb deploy needs it"]
    cluster.custom["inferenceservices"] = []
    (line,) = findings(examine)
    assert line.startswith("ok") and line.endswith("kubectl apply -n kubeflow -k manifests/serving")


def test_a_namespace_may_serve_models(cluster: KubeServer, examine: Examine) -> None:
    install(cluster, STANDALONE, runtime(RUNTIME))
    assert findings(examine) == [
        f"ok KServe KServe is installed, with runtime {RUNTIME}, and namespace kubeflow may serve models"
    ]


@pytest.mark.parametrize("is_profile", [True, False])
def test_kfps_store_keeps_other_namespaces_out(
    cluster: KubeServer, kfp_api: KfpServer, examine: Examine, is_profile: bool
) -> None:
    set_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(cluster)
    if not is_profile:
        cluster.add(namespace(PROFILE))
    install(cluster, PROFILE, runtime(RUNTIME))
    told = [
        f"kubectl label namespace {PROFILE} {'='.join(*PROFILE_LABELS.items())}" in line
        for line in findings(examine, "--namespace", PROFILE)
    ]
    assert told == [not is_profile]


def test_what_a_deploy_would_lack_is_a_warning(cluster: KubeServer, examine: Examine) -> None:
    install(cluster, STANDALONE, runtime("ours"), runtime("other", "sklearn"))
    cluster.add(serving_secret(STANDALONE, KEYS[0]), namespace(STANDALONE, {"control-plane": "kubeflow"}))
    lines = findings(examine)
    assert all(line.startswith("warning") for line in lines) and len(lines) == 3
    assert "which has the label control-plane -> deploy with --serving-namespace" in lines[0]
    assert f"with which KServe loads models, has no {KEYS[1]}" in lines[1]
    assert lines[2].endswith(f"KServe has no runtime {RUNTIME} -> deploy with --runtime: it has ours")
    cluster.custom["clusterservingruntimes"] = []
    assert "has no runtime for onnx by v2 -> install KServe's own runtimes" in findings(examine)[-1]
