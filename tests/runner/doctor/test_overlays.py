"""What doctor reports right after the commands of README and docs/cluster.md, in a new KFP 2.17."""

from typing import Any

import pytest
import yaml
from kubernetes import client

from runner.doctor.namespace import LIST_WORKFLOWS
from tests.manifests.manifests import MANIFESTS, RUNS_LIVE_IN, find, needs_kubectl, render
from tests.runner.doctor.objects import (
    PROFILE,
    STANDALONE,
    Examine,
    argo,
    config_map,
    controller,
    gpu_node,
    launcher_secret,
    make_profile,
    model_of,
    namespace,
    other_pod,
    s3_pod,
    s3_service,
    secret,
    set_version,
)
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer
from tests.servers.s3_server import BUCKET, KEY, SECRET, S3Server

pytestmark = [pytest.mark.slow, needs_kubectl]
PATCHES = MANIFESTS / "overlays" / "multi-user" / "patches"
WORDS = ("gpus=1", f"store=s3://{BUCKET}/team", 'tolerations=[{"operator": "Exists"}]')
EXECUTOR = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
OF_ARGO = {"retries", "requeue"}  # checks that warn of KFP's own settings


@pytest.fixture
def fresh(cluster: KubeServer, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    """The cluster as KFP's manifests leave it, with other pods on its nodes, and a real server as its object store."""
    cluster.remove("secrets", "torch2kubeflow-s3")
    cluster.remove("configmaps", "torch2kubeflow-s3")
    cluster.add(config_map("kfp-launcher", defaultPipelineRoot=f"minio://{BUCKET}/v2/artifacts"))
    cluster.add(launcher_secret(accesskey=KEY, secretkey=SECRET), s3_service(), s3_pod())
    cluster.add(argo("OnError", securityContext=EXECUTOR), controller(), gpu_node())
    cluster.add(other_pod("kfp", ends=False, cpu="900m"), other_pod("run", ends=True, cpu="1"))
    cluster.forwards["seaweedfs-0", 8333] = cluster.forwards["s3-0", 8333] = server.ports["s3.port"]
    monkeypatch.setattr("runner.doctor.s3.is_reachable", lambda _endpoint: False)  # as of names inside the cluster
    return cluster


def apply(cluster: KubeServer, overlay: str) -> None:
    """Add what `kubectl apply -k` would create, and the pods that come of it."""
    for document in render(overlay):
        thing: dict[str, Any] = yaml.safe_load(yaml.safe_dump(document))
        if thing["metadata"].get("namespace") == RUNS_LIVE_IN["multi-user"]:
            thing["metadata"]["namespace"] = PROFILE
        cluster.add(model_of(thing))
        if thing["kind"] == "StatefulSet":
            metadata = {**thing["spec"]["template"]["metadata"], "name": "s3-0", "namespace": "torch2kubeflow-s3"}
            pod = {"kind": "Pod", **thing["spec"]["template"], "metadata": metadata, "status": {"phase": "Running"}}
            cluster.add(model_of(pod))


def warned(table: str) -> set[str]:
    """The checks that warn."""
    return {line.split()[1] for line in table.splitlines() if line.startswith("warning")}


def test_standalone_without_keys(fresh: KubeServer, examine: Examine) -> None:
    apply(fresh, "standalone")
    code, table = examine(*WORDS)
    assert code == 0, table
    assert table.splitlines()[-1].startswith("0 problems, 3 warnings, ")
    assert warned(table) == {"Secrets", *OF_ARGO}
    assert "no keys in Secret torch2kubeflow-s3, and no role on service account pipeline-runner" in table
    assert f"ok S3 s3://{BUCKET}/v2/artifacts of KFP's launcher: written, read and removed" in table


@pytest.mark.parametrize("overlays", [("standalone",), ("local",), ("minio",), ("standalone", "gpu")], ids="-".join)
def test_keys_are_all_that_is_missing(fresh: KubeServer, examine: Examine, overlays: tuple[str, ...]) -> None:
    for overlay in overlays:
        apply(fresh, overlay)
    fresh.add(secret("torch2kubeflow-s3", AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET))
    code, table = examine(*WORDS)
    assert code == 0, table
    brings_a_server = overlays[0] != "standalone"  # besides KFP's own
    assert warned(table) == OF_ARGO | ({"launcher"} if brings_a_server else set()), table
    assert f"ok S3 s3://{BUCKET}/team of the steps: written, read and removed" in table


def test_amazon_by_the_role_of_the_service_account(fresh: KubeServer, examine: Examine) -> None:
    apply(fresh, "aws")
    account = fresh.objects["serviceaccounts", STANDALONE, "pipeline-runner"]
    account.metadata.annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/training"}
    code, table = examine(*WORDS)
    assert code == 0, table
    assert warned(table) == OF_ARGO, table
    assert "ok Secrets no keys in Secret torch2kubeflow-s3: steps use the role of service account" in table


def test_profile_with_its_patches(fresh: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    set_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(fresh)
    fresh.remove("configmaps", "torch2kubeflow-s3")
    apply(fresh, "multi-user")
    labels = yaml.safe_load((PATCHES / "namespace.yaml").read_text())["metadata"]["labels"]
    providers = yaml.safe_load((PATCHES / "kfp-launcher.yaml").read_text())["data"]["providers"]
    root = f"minio://{BUCKET}/private-artifacts/{PROFILE}/v2/artifacts"
    fresh.add(namespace(PROFILE, labels))
    fresh.add(config_map("kfp-launcher", PROFILE, defaultPipelineRoot=root, providers=providers))
    fresh.add(launcher_secret(PROFILE, accesskey=KEY, secretkey=SECRET))
    code, table = examine(*WORDS, "--namespace", PROFILE)
    assert code == 0, table
    assert warned(table) == {"Secrets", *OF_ARGO}, table
    role = find("multi-user", "Role")["torch2kubeflow-runs"]
    assert role["rules"] == [
        {"apiGroups": [LIST_WORKFLOWS.group], "resources": [LIST_WORKFLOWS.resource], "verbs": [LIST_WORKFLOWS.verb]}
    ], "which docs/cluster.md binds by hand"
    assert "ok Pod Security Pod Security level restricted, which our steps and Argo's containers meet" in table
    assert "ok quota quota torch2kubeflow has room for every step" in table
    asked = {request.namespace for request in fresh.requests if request.verb == "list"}
    assert asked == {PROFILE, STANDALONE, ""}
    assert isinstance(fresh.created[0], client.V1Pod)
