"""Verb doctor: what it finds in clusters that are as they should be, and in those that are not."""

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes import config as config_api

import pipeline
from components import steps
from components.shared.core.errors import UserError
from runner.doctor import doctor
from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok
from runner.doctor.network import Connection, End, allows
from runner.doctor.plan import Run, pods_of
from runner.doctor.pull import check_images, check_images_from_here
from runner.parameters import parse_parameters
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import Answer, KubeServer, cut, error, kube_server
from tests.servers.s3_server import BUCKET, KEY, READER_KEY, READER_SECRET, SECRET, answer, hand_on, proxy, s3_server

ROOT = Path(__file__).parents[3]
PUBLIC, PRIVATE = "AKIDOCTOR", "kept-secret-2f9c"
STANDALONE, PROFILE = "kubeflow", "ada"
STEP_LABELS = {"app.kubernetes.io/part-of": "torch2kubeflow"}
PART_OF_PROFILE = {"app.kubernetes.io/part-of": "kubeflow-profile"}
S3 = "http://127.0.0.1:1"  # where nothing listens
RESTRICTED = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
Change = Callable[[KubeServer], None]


@pytest.fixture
def cluster(tmp_path: Path, kfp_api: KfpServer) -> Iterator[KubeServer]:
    """A cluster with a standalone KFP 2.17 in which a run would end well."""
    answer_version(kfp_api, "2.17.0")
    with kube_server() as server:
        server.write_kubeconfig(tmp_path / ".kube" / "config")
        server.add(namespace(STANDALONE), namespace("kube-system"), kubernetes_endpoints())
        server.add(client.V1ServiceAccount(metadata=meta("pipeline-runner", STANDALONE)))
        server.add(secret("torch2kubeflow-s3", AWS_ACCESS_KEY_ID=PUBLIC, AWS_SECRET_ACCESS_KEY=PRIVATE))
        server.add(secret("mlpipeline-minio-artifact", accesskey=PUBLIC, secretkey=PRIVATE))
        server.add(config("torch2kubeflow-s3", AWS_ENDPOINT_URL_S3=S3), launcher(), argo("Always"))
        server.add(node("worker"))
        yield server


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the verb and return its exit code and its table, each finding on one line."""

    def run(*words: str) -> tuple[int, str]:
        code = run_verb(doctor, *words, pipeline=pipeline.training)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        assert PRIVATE not in shown.out + shown.err
        return code, unfold(shown.out)

    return run


Examine = Callable[..., tuple[int, str]]


def unfold(table: str) -> str:
    """Undo the folding of long texts; a remedy stays on the line of its finding."""
    return "\n".join(" ".join(block.split()) for block in table.replace("\n" + " " * 27, " ").split("\n"))


def meta(name: str, namespace: str = "", **more: Any) -> client.V1ObjectMeta:
    return client.V1ObjectMeta(name=name, namespace=namespace or None, **more)


def namespace(name: str, **labels: str) -> client.V1Namespace:
    return client.V1Namespace(metadata=meta(name, labels={"kubernetes.io/metadata.name": name, **labels}))


def secret(name: str, where: str = STANDALONE, **values: str) -> client.V1Secret:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return client.V1Secret(metadata=meta(name, where), data=data)


def config(name: str, where: str = STANDALONE, **values: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=meta(name, where), data=values)


def launcher(root: str = "minio://mlpipeline/v2/artifacts", where: str = STANDALONE, **changes: Any) -> Any:
    """KFP's ConfigMap with one provider, whose settings may be changed."""
    credentials = {
        "fromEnv": False,
        "secretRef": {
            "secretName": "mlpipeline-minio-artifact",
            "accessKeyKey": "accesskey",
            "secretKeyKey": "secretkey",
        },
    }
    default = {"endpoint": S3.removeprefix("http://"), "disableSSL": True, "credentials": credentials, **changes}
    providers = yaml.safe_dump({root.partition(":")[0]: {"default": default}})
    return config("kfp-launcher", where, defaultPipelineRoot=root, providers=providers)


def argo(policy: str = "", executor: Any = None) -> client.V1ConfigMap:
    """The configuration of Argo's controller: its retry policy, and the security context of its containers."""
    strategy = {"spec": {"templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": policy}}}}
    data = {"workflowDefaults": yaml.safe_dump(strategy)} if policy else {}
    if executor:
        data["executor"] = yaml.safe_dump({"securityContext": executor})
    return config("workflow-controller-configmap", **data)


def in_one_key(settings: client.V1ConfigMap, **beside: str) -> client.V1ConfigMap:
    """The same settings in the other form that Argo knows: all below `config`."""
    whole = {key: yaml.safe_load(value) for key, value in settings.data.items()}
    return config(settings.metadata.name, config=yaml.safe_dump(whole), **beside)


def kubernetes_endpoints() -> client.V1Endpoints:
    addresses = [client.V1EndpointAddress(ip="10.0.0.1")]
    subsets = [client.V1EndpointSubset(addresses=addresses, ports=[client.CoreV1EndpointPort(port=6443)])]
    return client.V1Endpoints(metadata=meta("kubernetes", "default"), subsets=subsets)


def node(name: str, *taints: str, labels: dict[str, str] | None = None, **allocatable: str) -> client.V1Node:
    """A node that holds the steps' images; taints as key=value:effect, `gpu` for nvidia.com/gpu."""
    amounts = {"cpu": "8", "memory": "32Gi", **allocatable}
    if "gpu" in amounts:
        amounts["nvidia.com/gpu"] = amounts.pop("gpu")
    return client.V1Node(
        metadata=meta(name, labels=labels),
        spec=client.V1NodeSpec(taints=[taint(text) for text in taints]),
        status=client.V1NodeStatus(
            allocatable=amounts,
            images=[client.V1ContainerImage(names=[image]) for image in (steps.DATA_IMAGE, steps.TORCH_IMAGE)],
        ),
    )


def taint(text: str) -> client.V1Taint:
    pair, _, effect = text.partition(":")
    key, _, value = pair.partition("=")
    return client.V1Taint(key=key, value=value or None, effect=effect)


def quota(used: dict[str, str] | None = None, **hard: str) -> client.V1ResourceQuota:
    """A quota; names with _ for the dot."""
    amounts = {name.replace("_", ".", 1): amount for name, amount in hard.items()}
    return client.V1ResourceQuota(
        metadata=meta("team", STANDALONE),
        spec=client.V1ResourceQuotaSpec(hard=amounts),
        status=client.V1ResourceQuotaStatus(hard=amounts, used=used),
    )


def limit_range(**item: dict[str, str]) -> client.V1LimitRange:
    limits = [client.V1LimitRangeItem(type="Container", **item)]
    return client.V1LimitRange(metadata=meta("team", STANDALONE), spec=client.V1LimitRangeSpec(limits=limits))


DEFAULTS = limit_range(default={"cpu": "1", "memory": "1Gi"}, default_request={"cpu": "100m", "memory": "128Mi"})


def model_of(document: dict[str, Any]) -> Any:
    """The client's model of a manifest."""
    return client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(document)), f"V1{document['kind']}")


def policy(where: str, **spec: Any) -> client.V1NetworkPolicy:
    """A policy as a manifest's `spec` has it."""
    metadata = {"name": "policy", "namespace": where}
    return model_of({"kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}, **spec}})


def answer_version(server: KfpServer, tag: str, multi_user: bool = False) -> None:
    """Tell the version as KFP's server does, beside the fields that the client's model knows."""
    body = json.dumps({"commit_sha": "0", "tag_name": tag, "multi_user": multi_user}).encode()
    server.multi_user = multi_user
    server.script("GET /healthz", *[lambda handler, _request: handler.reply(200, body)] * 2)


def make_profile(server: KubeServer) -> None:
    """A Profile beside KFP's own namespace, with what Kubeflow's controllers put into it."""
    server.add(namespace(PROFILE, **PART_OF_PROFILE))
    server.add(client.V1ServiceAccount(metadata=meta("default-editor", PROFILE)))
    server.add(secret("torch2kubeflow-s3", PROFILE, AWS_ACCESS_KEY_ID=PUBLIC, AWS_SECRET_ACCESS_KEY=PRIVATE))
    server.add(secret("mlpipeline-minio-artifact", PROFILE, accesskey=PUBLIC, secretkey=PRIVATE))
    server.add(config("torch2kubeflow-s3", PROFILE, AWS_ENDPOINT_URL_S3=S3), launcher(where=PROFILE))


def test_a_cluster_as_it_should_be_has_no_problem(cluster: KubeServer, examine: Examine) -> None:
    code, table = examine()
    assert code == 0, table
    assert "0 problems, 0 warnings, 1 unknown" in table
    assert "ok KFP KFP 2.17.0 answers, standalone" in table
    assert (
        f"unknown S3 s3://mlpipeline/v2/artifacts of KFP's launcher: {S3} cannot be reached from this machine" in table
    )
    assert "ok nodes 1 of 1 nodes can take step train (2 cpu, 4Gi memory)" in table
    for name in doctor.CHECKS:
        assert f" {name} " in table
    assert not [request for request in cluster.requests if request.verb not in ("get", "list", "create")]


def test_the_pod_of_the_dry_run_is_the_training_pod(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(node("gpu", "nvidia.com/gpu=present:NoSchedule", labels={"disk": "ssd"}, gpu="4"))
    code, table = examine(
        "gpus=2", 'tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}]', 'node_selector={"disk": "ssd"}'
    )
    assert code == 0, table
    assert "1 of 2 nodes can take step train (2 cpu, 4Gi memory, 2 nvidia.com/gpu)" in table
    (pod,) = [model for model in cluster.created if isinstance(model, client.V1Pod)]
    (container,) = pod.spec.containers
    assert container.resources.limits == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "2"}
    assert container.security_context.run_as_user == pipeline.USER
    assert container.security_context.capabilities.drop == ["ALL"]
    assert pod.spec.node_selector == {"disk": "ssd"}
    assert pod.metadata.labels["app.kubernetes.io/component"] == "train"


def test_a_profile_is_known_by_its_label(cluster: KubeServer, kfp_api: KfpServer, examine: Examine) -> None:
    kfp_api._faults.clear()
    answer_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(cluster)
    code, table = examine("--namespace", PROFILE)
    assert code == 0, table
    assert "ada is a Profile (multi-user); runs use service account default-editor" in table


ALL = {"ipBlock": {"cidr": "0.0.0.0/0"}}
NO_METADATA = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}
PUBLIC_ONLY = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}}
GPU_NODE = node("gpu", "nvidia.com/gpu=present:NoSchedule", labels={"nvidia.com/gpu.product": "A100"}, gpu="4")
FOUND: list[tuple[Change, list[str], str]] = [
    (lambda c: c.remove("namespaces", STANDALONE), [], "problem namespace namespace kubeflow does not exist"),
    (
        lambda c: c.add(secret("torch2kubeflow-s3", accesskey=PUBLIC, secretkey=PRIVATE)),
        [],
        "problem Secrets Secret torch2kubeflow-s3 lacks AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
        "it has accesskey, secretkey",
    ),
    (
        lambda c: c.add(secret("torch2kubeflow-s3", AWS_ACCESS_KEY_ID=PUBLIC, AWS_SECRET_ACCESS_KEY=PRIVATE + "\n")),
        [],
        "problem Secrets Secret torch2kubeflow-s3 has space or a newline around AWS_SECRET_ACCESS_KEY",
    ),
    (
        lambda c: c.remove("secrets", "torch2kubeflow-s3"),
        [],
        "warning Secrets no Secret torch2kubeflow-s3, and no role on service account pipeline-runner",
    ),
    (
        lambda c: c.add(secret("mine")),
        ["source_secret=mine"],
        "problem Secrets Secret mine lacks AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; it has nothing",
    ),
    (
        lambda c: c.add(config("torch2kubeflow-s3", AWS_ENDPOINT_URL_S3="minio:9000")),
        [],
        "problem ConfigMap ConfigMap torch2kubeflow-s3 has AWS_ENDPOINT_URL_S3=minio:9000 -> begin it with http://",
    ),
    (
        lambda c: c.remove("configmaps", "torch2kubeflow-s3"),
        [],
        "warning ConfigMap no AWS_ENDPOINT_URL_S3 in ConfigMap torch2kubeflow-s3: S3 is Amazon's, in no region",
    ),
    (
        lambda c: c.add(config("kfp-launcher", defaultPipelineRoot="bucket/artifacts")),
        [],
        "problem launcher kfp-launcher has defaultPipelineRoot bucket/artifacts -> begin it with s3://, minio:// or gs://",
    ),
    (
        lambda c: c.add(config("kfp-launcher", defaultPipelineRoot="gs://bucket")),
        [],
        "unknown launcher artifacts go to gs://bucket, which is no S3 -> see that pods may write there",
    ),
    (
        lambda c: c.add(launcher(credentials=None)),
        [],
        "problem launcher kfp-launcher has no credentials for minio:// -> add secretRef or fromEnv: true",
    ),
    (
        lambda c: (
            c.add(config("kfp-launcher", defaultPipelineRoot="s3://bucket/a")),
            c.remove("secrets", "torch2kubeflow-s3"),
        ),
        [],
        "problem launcher artifacts go to s3://bucket/a with the steps' credentials, and there are none",
    ),
    (
        lambda c: c.remove("secrets", "mlpipeline-minio-artifact"),
        [],
        "problem launcher the launcher's Secret mlpipeline-minio-artifact does not exist",
    ),
    (
        lambda c: c.add(secret("mlpipeline-minio-artifact", accesskey=PUBLIC)),
        [],
        "problem launcher the launcher's Secret mlpipeline-minio-artifact lacks secretkey",
    ),
    (
        lambda c: c.add(secret("mlpipeline-minio-artifact", accesskey="another", secretkey=PRIVATE)),
        [],
        "warning launcher the launcher uses Secret mlpipeline-minio-artifact, the steps use torch2kubeflow-s3",
    ),
    (
        lambda c: c.add(config("torch2kubeflow-s3", AWS_ENDPOINT_URL_S3="http://127.0.0.1:2")),
        [],
        "warning launcher artifacts go to http://127.0.0.1:1, but ConfigMap torch2kubeflow-s3 sends the steps to",
    ),
    (
        lambda c: c.add(launcher(forcePathStyle=False)),
        [],
        "warning launcher kfp-launcher has forcePathStyle false: it will look for mlpipeline in DNS",
    ),
    (
        lambda c: None,
        ["gpus=1"],
        "problem nodes no node that step train may use offers 1 nvidia.com/gpu -> install the device plugin",
    ),
    (
        lambda c: c.add(GPU_NODE),
        ["gpus=8"],
        "problem nodes no node that step train may use offers 8 nvidia.com/gpu; the largest has 4 -> set gpus=4",
    ),
    (
        lambda c: c.add(GPU_NODE),
        ["gpus=1", "gpu_resource=amd.com/gpu"],
        "offers 1 amd.com/gpu -> set gpu_resource to one of nvidia.com/gpu, or",
    ),
    (
        lambda c: c.add(GPU_NODE),
        ["gpus=1", 'node_selector={"nvidia.com/gpu.product": "H100"}'],
        "problem nodes no node has the labels nvidia.com/gpu.product=H100 that step train asks for "
        "-> change node_selector: nvidia.com/gpu.product is A100",
    ),
    (
        lambda c: c.add(GPU_NODE),
        ["gpus=1"],
        "problem nodes every node for step train has a taint that it does not tolerate: "
        "nvidia.com/gpu=present:NoSchedule "
        '-> set tolerations=\'[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]\'',
    ),
    (
        lambda c: c.add(GPU_NODE),
        ["gpus=1", 'tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}]'],
        "does not tolerate: nvidia.com/gpu=present:NoSchedule",
    ),
    (
        lambda c: None,
        ["train_memory=64Gi"],
        "problem nodes no node that step train may use offers 64Gi memory; the largest has 32Gi -> set train_memory",
    ),
    (
        lambda c: c.add(node("worker", "node.kubernetes.io/unschedulable:NoSchedule")),
        [],
        "warning nodes every node for step train is out of service now (unschedulable)",
    ),
    (
        lambda c: c.add(node("worker", "team=other:NoExecute")),
        ['tolerations=[{"operator": "Exists"}]'],
        "problem nodes every node for step evaluate has a taint that it does not tolerate: team=other:NoExecute "
        "-> add a node without taints for the other steps",
    ),
    (
        lambda c: c.add(quota(limits_cpu="3"), DEFAULTS),
        [],
        "problem quota step evaluate needs 4 limits.cpu, quota team allows 3 -> ask for less",
    ),
    (
        lambda c: c.add(quota(requests_memory="16Gi", used={"requests.memory": "14Gi"}), DEFAULTS),
        [],
        "warning quota step train needs 4Gi requests.memory, but 14Gi of 16Gi in quota team are taken",
    ),
    (
        lambda c: c.add(quota(**{"requests_nvidia.com/gpu": "1"}), GPU_NODE),
        ["gpus=2", 'tolerations=[{"operator": "Exists"}]'],
        "problem quota step train needs 2 requests.nvidia.com/gpu, quota team allows 1",
    ),
    (
        lambda c: c.add(quota(cpu="100", limits_memory="1Ti")),
        [],
        "problem quota quota on cpu, limits.memory without a LimitRange: KFP's drivers",
    ),
    (
        lambda c: c.add(limit_range(max={"memory": "2Gi"})),
        [],
        "problem LimitRange step train has the memory limit 4Gi; the LimitRange allows 2Gi",
    ),
    (
        lambda c: c.add(limit_range(min={"cpu": "200m"})),
        [],
        "problem LimitRange step resolve requests 100m cpu; the LimitRange demands 200m",
    ),
    (
        lambda c: c.add(limit_range(max_limit_request_ratio={"cpu": "8"})),
        [],
        "problem LimitRange step resolve has cpu 100m to 1; the LimitRange allows a ratio of 8",
    ),
    (
        lambda c: c.add(namespace(STANDALONE, **{"pod-security.kubernetes.io/enforce": "restricted"})),
        [],
        "problem Pod Security Pod Security level restricted, but Argo's own containers",
    ),
    (
        lambda c: setattr(c, "admission", 'violates PodSecurity "restricted:latest": unrestricted capabilities'),
        [],
        'problem admission the cluster refuses the training pod: pods "torch2kubeflow-doctor-train" is forbidden: '
        'violates PodSecurity "restricted:latest": unrestricted capabilities -> have the namespace\'s label',
    ),
    (
        lambda c: setattr(c, "admission", "exceeded quota: team, requested: cpu=2, used: cpu=3, limited: cpu=4"),
        [],
        "warning admission the cluster refuses the training pod: ",
    ),
    (
        lambda c: c.faults.update({"create pods": error(422, "spec.nodeSelector: Invalid value: must be no more")}),
        [],
        "problem admission the cluster refuses the training pod: spec.nodeSelector: Invalid value: must be no more "
        "-> change the parameters that it names",
    ),
    (
        lambda c: c.faults.update({"create pods": error(400, 'webhook "team" denied the request: no owner')}),
        [],
        'problem admission the cluster refuses the training pod: webhook "team" denied the request: no owner',
    ),
    (
        lambda c: c.faults.update({"create pods": error(400, 'webhook "team" does not support dry run')}),
        [],
        'unknown admission the training pod cannot be tried: webhook "team" does not support dry run',
    ),
    (
        lambda c: c.remove("serviceaccounts", "pipeline-runner"),
        [],
        "problem service account service account pipeline-runner does not exist in kubeflow",
    ),
    (
        lambda c: c.account_lacks.add("create workflowtaskresults"),
        [],
        "problem service account service account pipeline-runner may not create workflowtaskresults -> add to its "
        'Role: {apiGroups: ["argoproj.io"], resources: ["workflowtaskresults"], verbs: ["create"]}',
    ),
    (
        lambda c: c.add(argo("OnError")),
        [],
        "warning retries Argo retries a step whose pod vanished (retryPolicy OnError)",
    ),
    (lambda c: c.add(argo()), [], "warning retries Argo retries a step that failed (retryPolicy OnFailure)"),
    (
        lambda c: c.remove("configmaps", "workflow-controller-configmap"),
        [],
        "unknown retries no ConfigMap workflow-controller-configmap in namespace kubeflow tells Argo's retry policy",
    ),
    (
        lambda c: (
            c.remove("configmaps", "workflow-controller-configmap"),
            c.add(namespace(STANDALONE, **{"pod-security.kubernetes.io/enforce": "restricted"})),
        ),
        [],
        "unknown Pod Security Pod Security level restricted, and no ConfigMap workflow-controller-configmap",
    ),
    (
        lambda c: c.add(in_one_key(argo(), **argo("Always").data)),
        [],
        "warning retries Argo retries a step that failed (retryPolicy OnFailure)",
    ),
    (
        lambda c: c.add(policy(STANDALONE, podSelector={"matchLabels": STEP_LABELS}, policyTypes=["Egress"])),
        [],
        "problem NetworkPolicy a NetworkPolicy keeps step download, step evaluate, step export, step finish, "
        "step preprocess, step register, step resolve, step train from DNS (UDP 53)",
    ),
    (
        lambda c: c.add(policy(STANDALONE, egress=[{"to": [ALL]}], policyTypes=["Egress"])),
        [],
        "warning NetworkPolicy NetworkPolicies let every pod of a run reach ml-pipeline (TCP 8888) by an ipBlock "
        "alone, which holds for pods with some CNIs only -> allow egress to pods app=ml-pipeline,",
    ),
    (
        lambda c: c.add(
            policy(STANDALONE, podSelector={"matchLabels": STEP_LABELS}, egress=[{"to": [NO_METADATA]}]),
            policy(STANDALONE, policyTypes=["Ingress"], ingress=[{"from": [ALL]}]),
        ),
        [],
        "warning NetworkPolicy NetworkPolicies let every pod of a run reach ml-pipeline (TCP 8888) by an ipBlock alone",
    ),
    (
        lambda c: c.add(policy(STANDALONE, egress=[{"to": [PUBLIC_ONLY]}], policyTypes=["Egress"])),
        [],
        "problem NetworkPolicy a NetworkPolicy keeps every pod of a run from ml-pipeline (TCP 8888)",
    ),
    (
        lambda c: c.add(config("kfp-launcher", providers="[")),
        [],
        "problem launcher ConfigMap kfp-launcher has no YAML mapping in its key providers",
    ),
    (
        lambda c: c.add(launcher(credentials={"secretRef": {"secretName": "keys"}})),
        [],
        "problem launcher kfp-launcher has a secretRef without accessKeyKey, secretKeyKey",
    ),
    (
        lambda c: c.add(policy(STANDALONE, policyTypes=["Egress", "Ingress"])),
        [],
        "problem NetworkPolicy a NetworkPolicy keeps every pod of a run from the Kubernetes API (TCP 6443)",
    ),
]


@pytest.mark.parametrize(("change", "words", "said"), FOUND, ids=[said[:60] for _, _, said in FOUND])
def test_what_is_wrong_is_found_with_its_remedy(
    cluster: KubeServer, examine: Examine, change: Change, words: list[str], said: str
) -> None:
    change(cluster)
    code, table = examine(*words)
    (line,) = [line for line in table.splitlines() if said in line]
    assert " -> " in line
    assert code == int("\nproblem " in "\n" + table)


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("2.14.3", "problem KFP KFP is 2.14.3, older than 2.17"),
        ("v2.18.0", "ok KFP KFP v2.18.0 answers"),
        ("unknown", "warning KFP KFP answers and does not tell its version (unknown)"),
    ],
)
def test_the_version_of_kfp_is_compared(
    cluster: KubeServer, kfp_api: KfpServer, examine: Examine, tag: str, said: str
) -> None:
    kfp_api._faults.clear()
    answer_version(kfp_api, tag)
    assert said in examine()[1]


RULES = {
    "get namespaces": 'resources: ["namespaces"], verbs: ["get"]} in a ClusterRole',
    "get secrets": '{apiGroups: [""], resources: ["secrets"], verbs: ["get"]} in a Role in namespace kubeflow',
    "get configmaps": 'resources: ["configmaps"], verbs: ["get"]}',
    "list nodes": 'resources: ["nodes"], verbs: ["list"]} in a ClusterRole',
    "list resourcequotas": 'resources: ["resourcequotas"], verbs: ["list"]}',
    "list limitranges": 'resources: ["limitranges"], verbs: ["list"]}',
    "create pods": 'resources: ["pods"], verbs: ["create"]}',
    "list networkpolicies": '{apiGroups: ["networking.k8s.io"], resources: ["networkpolicies"], verbs: ["list"]}',
    "get endpoints": 'resources: ["endpoints"], verbs: ["get"]} in a Role in namespace default',
    "get serviceaccounts": 'resources: ["serviceaccounts"], verbs: ["get"]}',
    "create localsubjectaccessreviews": '["authorization.k8s.io"], resources: ["localsubjectaccessreviews"]',
}


@pytest.mark.parametrize("denied", RULES)
def test_where_a_right_is_missing_it_says_which(cluster: KubeServer, examine: Examine, denied: str) -> None:
    cluster.denied.add(denied)
    _, table = examine()
    assert any(line.startswith("unknown") and RULES[denied] in line for line in table.splitlines()), table


def test_without_any_right_nothing_is_known_and_nothing_is_wrong(cluster: KubeServer, examine: Examine) -> None:
    cluster.denied |= set(RULES)
    _, table = examine("gpus=1")
    problems = [line for line in table.splitlines() if line.startswith("problem")]
    assert all(" names no registry " in line for line in problems), table  # which no right is needed for
    assert "unknown" in table.splitlines()[-1]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (error(500, "etcd is away"), "unknown nodes the Kubernetes API answered 500: etcd is away -> try again later"),
        (error(401, "Unauthorized"), "problem nodes the Kubernetes API does not know this user (401) -> log in again"),
        (cut, "unknown nodes the Kubernetes API cannot be reached to ask http://127.0.0.1:"),
        (lambda handler: handler.reply(503, "no Status"), "unknown nodes the Kubernetes API answered 503: Service"),
    ],
)
def test_a_check_that_cannot_be_made_leaves_the_others(
    cluster: KubeServer, examine: Examine, fault: Answer, said: str
) -> None:
    cluster.faults["list nodes"] = fault
    _, table = examine()
    assert said in table
    assert "ok retries" in table


def test_an_expired_login_ends_the_checks_of_the_cluster(cluster: KubeServer, examine: Examine) -> None:
    cluster.token = "another"
    code, table = examine()
    assert code == 1
    assert table.splitlines()[1].startswith("problem Kubernetes the Kubernetes API does not know this user (401)")
    assert {line.split()[1] for line in table.splitlines()[2:-2]} == {"images"}


def test_without_a_kubeconfig_kfp_and_images_alone_are_looked_at(
    tmp_path: Path, cluster: KubeServer, examine: Examine
) -> None:
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


def test_a_cluster_out_of_reach_leaves_the_images(
    tmp_path: Path, cluster: KubeServer, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (tmp_path / ".kube" / "config").read_text()
    (tmp_path / ".kube" / "config").write_text(text.replace(cluster.url, "http://127.0.0.1:1"))
    with registry({"team/data/manifests/1"}) as host:
        pods = pods_with(f"{host}/team/data:1")
        monkeypatch.setattr(doctor, "pods_of", lambda *_: pods)
        code, table = examine()
    assert code == 0
    assert table.splitlines()[2:-2] == [f"ok images image {host}/team/data:1 can be pulled; {FROM_HERE}"]
    said = "unknown Kubernetes the Kubernetes API cannot be reached to ask http://127.0.0.1:1 ("
    assert said in table
    assert "Connection refused) -> check the kubeconfig's context" in table


@pytest.mark.slow  # its client tries again, with waits
def test_a_kfp_out_of_reach_is_a_problem(
    cluster: KubeServer, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_profile(cluster)
    monkeypatch.setenv("KFP_NAMESPACE", PROFILE)
    code, table = examine("--host", "http://127.0.0.1:1")
    assert code == 1
    assert table.splitlines()[0].startswith("problem KFP http://127.0.0.1:1 cannot be reached")
    assert "ok namespace ada is a Profile" in table


def test_in_a_pod_runs_live_beside_it(
    cluster: KubeServer, examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_profile(cluster)
    (tmp_path / "namespace").write_text(PROFILE)
    monkeypatch.setattr("runner.cluster.options.POD_NAMESPACE", tmp_path / "namespace")
    assert "ok namespace ada is a Profile" in examine("--host", "no-scheme")[1]
    assert "ok namespace kubeflow is KFP's own" in examine("--host", "no-scheme", "--namespace", STANDALONE)[1]


def test_a_parameter_that_may_not_be_is_refused(cluster: KubeServer) -> None:
    with pytest.raises(UserError, match="gpus=lots is not accepted"):
        run_verb(doctor, "gpus=lots", pipeline=pipeline.training)


def test_a_role_of_the_cloud_needs_no_keys(cluster: KubeServer, examine: Examine) -> None:
    annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/runner"}
    cluster.add(client.V1ServiceAccount(metadata=meta("pipeline-runner", STANDALONE, annotations=annotations)))
    cluster.add(config("kfp-launcher", defaultPipelineRoot="s3://bucket/a"))
    cluster.remove("secrets", "torch2kubeflow-s3")
    code, table = examine()
    assert code == 0, table
    assert "ok Secrets no Secret torch2kubeflow-s3: steps use the role of service account pipeline-runner" in table
    assert "ok launcher launcher and steps share the steps' credentials" in table


def test_an_obstacle_of_several_checks_is_told_once(cluster: KubeServer, examine: Examine) -> None:
    cluster.add(launcher(credentials=None))
    assert examine()[1].count("kfp-launcher has no credentials for minio://") == 1


def test_a_launchers_override_is_for_its_bucket_and_prefix(cluster: KubeServer, examine: Examine) -> None:
    secret_ref = {"secretName": "team", "accessKeyKey": "key", "secretKeyKey": "value"}
    override = {"bucketName": "mlpipeline", "keyPrefix": "v2/artifacts", "credentials": {"secretRef": secret_ref}}
    default = {"endpoint": "127.0.0.1:1", "credentials": {"fromEnv": True}}
    providers = yaml.safe_dump({"minio": {"default": default, "overrides": [override]}})
    cluster.add(config("kfp-launcher", providers=providers))
    assert "problem launcher the launcher's Secret team does not exist" in examine()[1]
    override["keyPrefix"] = "other"
    cluster.add(
        config("kfp-launcher", providers=yaml.safe_dump({"minio": {"default": default, "overrides": [override]}}))
    )
    assert "ok launcher launcher and steps share the steps' credentials" in examine()[1]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders the manifests, is not installed")
def test_a_profile_with_our_manifests_has_room_and_open_ways(
    cluster: KubeServer, kfp_api: KfpServer, examine: Examine
) -> None:
    kfp_api._faults.clear()
    answer_version(kfp_api, "2.17.0", multi_user=True)
    make_profile(cluster)
    rendered = subprocess.run(
        ["kubectl", "kustomize", "manifests/overlays/multi-user"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    kinds = {"NetworkPolicy": 0, "ResourceQuota": 0, "LimitRange": 0}
    for document in yaml.safe_load_all(rendered.stdout):
        if document["kind"] in kinds:
            kinds[document["kind"]] += 1
            document["metadata"]["namespace"] = PROFILE
            cluster.add(model_of(document))
    assert all(kinds.values())
    cluster.add(config("torch2kubeflow-s3", PROFILE), config("kfp-launcher", PROFILE))  # S3 is KFP's own
    cluster.add(node("gpu", gpu="1"))
    _, table = examine("gpus=1", "--namespace", PROFILE, "--s3-endpoint", S3)
    assert f"ok NetworkPolicy {kinds['NetworkPolicy']} NetworkPolicies, which leave open" in table, table
    assert "ok LimitRange every step is within the LimitRange" in table
    assert "problem quota" not in table, table


@pytest.mark.parametrize("form", [lambda settings: settings, in_one_key], ids=["keys", "one key"])
def test_argo_may_meet_the_restricted_level(
    cluster: KubeServer, examine: Examine, form: Callable[[client.V1ConfigMap], client.V1ConfigMap]
) -> None:
    cluster.add(namespace(STANDALONE, **{"pod-security.kubernetes.io/enforce": "restricted"}))
    cluster.add(form(argo("Always", executor=RESTRICTED)))
    assert "ok Pod Security Pod Security level restricted, which our steps and Argo's containers meet" in examine()[1]


SOURCE = End("step", PROFILE, PART_OF_PROFILE, STEP_LABELS)
SERVER = End("server", STANDALONE, {"kubernetes.io/metadata.name": STANDALONE}, {"app": "ml-pipeline"})
OUTSIDE = End("outside", "", {}, {}, "192.0.2.7")
SELECTED = {"podSelector": {"matchLabels": STEP_LABELS}}
TO_SERVER = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": STANDALONE}},
    "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["ml-pipeline", "minio"]}]},
}


@pytest.mark.parametrize(
    ("rules", "target", "open_"),
    [
        ([], SERVER, True),
        ([policy(PROFILE, policyTypes=["Egress"])], SERVER, False),
        ([policy(PROFILE, policyTypes=["Ingress"])], SERVER, True),
        ([policy(STANDALONE, policyTypes=["Egress"])], SERVER, True),
        ([policy(STANDALONE, policyTypes=["Ingress"])], SERVER, False),
        ([policy(PROFILE, policyTypes=["Egress"], egress=[{}])], SERVER, True),
        ([policy(PROFILE, egress=[{"ports": [{"port": 8888}]}])], SERVER, True),
        ([policy(PROFILE, egress=[{"ports": [{"port": 8887}]}])], SERVER, False),
        ([policy(PROFILE, egress=[{"ports": [{"port": 8000, "endPort": 9000}]}])], SERVER, True),
        ([policy(PROFILE, egress=[{"ports": [{"port": 8888, "protocol": "UDP"}]}])], SERVER, False),
        ([policy(PROFILE, egress=[{"ports": [{"protocol": "TCP"}]}])], SERVER, True),
        ([policy(PROFILE, egress=[{"ports": [{"port": "http"}]}])], SERVER, True),
        ([policy(PROFILE, egress=[{"ports": [{"port": "http", "protocol": "UDP"}]}])], SERVER, False),
        ([policy(PROFILE, egress=[{"to": [TO_SERVER]}])], SERVER, True),
        ([policy(PROFILE, egress=[{"to": [{"podSelector": {}}]}])], SERVER, False),
        ([policy(PROFILE, egress=[{"to": [{"namespaceSelector": {}}]}])], SERVER, True),
        ([policy(PROFILE, egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])], SERVER, False),
        ([policy(PROFILE, egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])], OUTSIDE, True),
        ([policy(PROFILE, egress=[{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}])], OUTSIDE, True),
        (
            [policy(PROFILE, egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/28"]}}]}])],
            OUTSIDE,
            False,
        ),
        ([policy(PROFILE, egress=[{"to": [{"namespaceSelector": {}}]}])], OUTSIDE, False),
        ([policy(PROFILE, **SELECTED, policyTypes=["Egress"])], SERVER, False),
        ([policy(PROFILE, podSelector={"matchLabels": {"app": "other"}}, policyTypes=["Egress"])], SERVER, True),
        ([policy(PROFILE, policyTypes=["Egress"]), policy(PROFILE, egress=[{"to": [TO_SERVER]}])], SERVER, True),
        (
            [policy(STANDALONE, ingress=[{"from": [{"namespaceSelector": {"matchLabels": PART_OF_PROFILE}}]}])],
            SERVER,
            True,
        ),
        ([policy(STANDALONE, ingress=[{"from": [{"podSelector": {}}]}])], SERVER, False),
    ],
)
def test_policies_are_read_as_kubernetes_reads_them(
    rules: list[client.V1NetworkPolicy], target: End, open_: bool
) -> None:
    assert allows(rules, SOURCE, Connection(target, 8888)) is open_


CHALLENGE = 'Bearer realm="http://HOST/token",service="r",scope="pull"'
GRANT = '{"token": "granted"}'


@contextmanager
def registry(images: set[str], login: str = "", challenge: str = CHALLENGE, grant: str = GRANT) -> Iterator[str]:
    """A registry on the loopback interface that has `images` (repository/manifests/reference); yields its name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Grant a token to whom it knows."""
            if login and self.headers.get("Authorization") != f"Basic {basic(login)}":
                return self.reply(401, b"")
            return self.reply(200, grant.encode())

        def do_HEAD(self) -> None:
            if self.headers.get("Authorization") != "Bearer granted":
                return self.reply(401, b"", WWW_Authenticate=challenge.replace("HOST", self.headers["Host"]))
            return self.reply(200 if self.path.removeprefix("/v2/") in images else 404, b"")

        def reply(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def basic(login: str) -> str:
    return base64.b64encode(login.encode()).decode()


def add_pull_secret(server: KubeServer, text: str) -> None:
    """Give the pods' service account a pull secret."""
    server.add(secret("pull", **{".dockerconfigjson": text}))
    account = client.V1ServiceAccount(metadata=meta("pipeline-runner", STANDALONE))
    account.image_pull_secrets = [client.V1LocalObjectReference(name="pull")]
    server.add(account)


def ask_for_image(server: KubeServer, tmp_path: Path, name: str) -> Finding:
    """What is found about an image that all steps use."""
    with config_api.new_client_from_config(str(tmp_path / ".kube" / "config")) as api:
        (finding,) = check_images(Cluster(api, STANDALONE, STANDALONE), Run({}, pods_with(name)))
    return finding


def pods_with(image: str) -> list[client.V1Pod]:
    """The pods of a run whose steps all use that image."""
    pods = pods_of(pipeline.training, parse_parameters(pipeline.training, []))
    for pod in pods:
        pod.spec.containers[0].image = image
    return pods


FROM_HERE = "asked from here, without the cluster's pull secrets"


def test_without_a_cluster_an_image_is_asked_for_without_its_pull_secrets() -> None:
    with registry({"team/data/manifests/1"}) as open_, registry({"team/data/manifests/1"}, login="a:b") as private:
        names = f"{open_}/team/data:1", f"{open_}/team/data:2", f"{private}/team/data:1", "data:1"
        found = {name: finding for name in names for finding in check_images_from_here(Run({}, pods_with(name)))}
    gone = list(check_images_from_here(Run({}, pods_with(names[0]))))
    assert [finding.state for finding in found.values()] == ["ok", "problem", "unknown", "problem"]
    assert found[names[0]].text == f"image {names[0]} can be pulled; {FROM_HERE}"
    assert found[names[2]].text == f"image {names[2]} cannot be pulled without credentials (401); {FROM_HERE}"
    assert "imagePullSecrets of the service account" in found[names[2]].remedy
    assert [finding.state for finding in gone] == ["unknown"]


def test_an_image_is_asked_for_as_a_node_would(cluster: KubeServer, tmp_path: Path) -> None:
    digest = "sha256:" + 64 * "0"
    with registry({"team/data/manifests/1", f"team/data/manifests/{digest}"}) as host:
        for name in (f"{host}/team/data:1", f"{host}/team/data@{digest}"):
            assert ask_for_image(cluster, tmp_path, name) == ok(f"image {name} can be pulled")
        missing = ask_for_image(cluster, tmp_path, f"{host}/team/data:2")
    assert missing.state == "problem"
    assert missing.text == f"image {host}/team/data:2 is not in its registry"
    gone = ask_for_image(cluster, tmp_path, f"{host}/team/data:1")
    assert (gone.state, gone.text.partition(" (")[0]) == ("unknown", f"registry {host} gives no usable answer here")


def test_a_private_image_needs_the_service_accounts_pull_secret(cluster: KubeServer, tmp_path: Path) -> None:
    with registry({"team/data/manifests/1"}, login="ada:lovelace") as host:
        name = f"{host}/team/data:1"
        refused = ask_for_image(cluster, tmp_path, name)
        assert (refused.state, refused.text) == ("problem", f"image {name} cannot be pulled without credentials (401)")
        for login, state in (("ada:lovelace", "ok"), ("ada:byron", "problem")):
            add_pull_secret(cluster, json.dumps({"auths": {host: {"auth": basic(login)}}}))
            assert ask_for_image(cluster, tmp_path, name).state == state


@pytest.mark.parametrize("key", ["https://HOST", "http://HOST/v2/", "HOST/team", "HOST/v1/team/data", "*.0.0.1:PORT"])
def test_a_pull_secret_is_found_as_kubelet_finds_it(cluster: KubeServer, tmp_path: Path, key: str) -> None:
    with registry({"team/data/manifests/1"}, login="ada:lovelace") as host:
        key = key.replace("HOST", host).replace("PORT", host.partition(":")[2])
        others = {f"{host}/other": {"auth": basic("ada:byron")}, host.partition(":")[0]: {}, "*.1": {}}
        logins = {**others, key: {"username": "ada", "password": "lovelace", "auth": ""}}
        add_pull_secret(cluster, json.dumps({"auths": logins}))
        assert ask_for_image(cluster, tmp_path, f"{host}/team/data:1").state == "ok"


def test_the_nearest_login_of_a_pull_secret_counts(cluster: KubeServer, tmp_path: Path) -> None:
    with registry({"team/data/manifests/1"}, login="ada:lovelace") as host:
        logins = {host: {"auth": basic("ada:byron")}, f"https://{host}/team": {"auth": basic("ada:lovelace")}}
        add_pull_secret(cluster, json.dumps({"auths": logins}))
        assert ask_for_image(cluster, tmp_path, f"{host}/team/data:1").state == "ok"


@pytest.mark.parametrize(
    "text",
    [
        '{"auths": {"HOST": {"identitytoken": "x"}}}',
        '{"auths": {"HOST": {"auth": "YQ"}}}',
        '{"auths": {"HOST": {"auth": "bm8gY29sb24="}}}',
        '{"auths": {"HOST": "x"}}',
        '{"auths": ["HOST"]}',
        "[]",
        "{",
    ],
)
def test_a_bad_pull_secret_is_told(cluster: KubeServer, tmp_path: Path, text: str) -> None:
    with registry(set()) as host:
        add_pull_secret(cluster, text.replace("HOST", host))
        with pytest.raises(UserError, match="pull secret pull cannot be read; make it anew"):
            ask_for_image(cluster, tmp_path, f"{host}/team/data:1")


@pytest.mark.parametrize(
    ("challenge", "grant", "why"),
    [
        ('Bearer service="r"', "", "InvalidHeader"),
        (CHALLENGE, "no JSON", "JSONDecodeError"),
        (CHALLENGE, "[]", "InvalidJSONError"),
        (CHALLENGE, "{}", "InvalidJSONError"),
    ],
)
def test_a_registry_that_answers_nonsense_is_told(
    cluster: KubeServer, tmp_path: Path, challenge: str, grant: str, why: str
) -> None:
    with registry(set(), challenge=challenge, grant=grant) as host:
        found = ask_for_image(cluster, tmp_path, f"{host}/team/data:1")
    text = f"registry {host} gives no usable answer here ({why}); the nodes may reach it"
    assert (found.state, found.text) == ("unknown", text)


def test_an_image_on_some_nodes_only_is_a_warning(cluster: KubeServer, tmp_path: Path) -> None:
    assert ask_for_image(cluster, tmp_path, steps.DATA_IMAGE) == ok(f"image {steps.DATA_IMAGE} is on every node")
    bare = node("bare")
    bare.status.images = None
    cluster.add(bare)
    found = ask_for_image(cluster, tmp_path, steps.DATA_IMAGE)
    assert (found.state, found.text.rpartition("; ")[2]) == ("warning", "1 of 2 nodes have it")


@pytest.mark.slow
def test_s3_is_tried_with_the_pods_own_credentials(cluster: KubeServer, examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as server:
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        cluster.add(secret("torch2kubeflow-s3", **keys), config("torch2kubeflow-s3", AWS_ENDPOINT_URL_S3=server.url))
        cluster.add(secret("mlpipeline-minio-artifact", accesskey=KEY, secretkey=SECRET))
        cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint=server.address))
        tried = "written, read and removed, also in parts and on conditions"
        code, table = examine(f"store=s3://{BUCKET}/store")
        assert code == 0, table
        assert f"ok S3 s3://{BUCKET}/artifacts of KFP's launcher: {tried}" in table
        assert f"ok S3 s3://{BUCKET}/store of the steps: {tried}" in table
        assert f"s3://{BUCKET}/store of the steps: {server.url} is not encrypted (no TLS)" in table
        assert not list(server.client.list_objects(BUCKET, recursive=True))

        _, table = examine("store=s3://no-bucket/store")
        assert "problem S3 s3://no-bucket/store of the steps: s3://no-bucket/store" in table
        assert "there is no such bucket -> create it, or correct the address" in table

        place = {"AWS_ENDPOINT_URL_S3": server.tls_url, "ca.crt": server.certificate.read_text()}
        cluster.add(config("torch2kubeflow-s3", **place))
        _, table = examine(f"store=s3://{BUCKET}/store")
        assert "problem S3 s3://bucket/store of the steps" in table
        assert "not trusted (self-signed certificate) -> name its authority in AWS_CA_BUNDLE" in table
        cluster.add(config("torch2kubeflow-s3", **place, AWS_CA_BUNDLE="/etc/torch2kubeflow/ca.crt"))
        cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint=server.tls_url))
        _, table = examine(f"store=s3://{BUCKET}/store")
        assert f"ok S3 s3://{BUCKET}/artifacts of KFP's launcher: {tried}" in table
        assert f"ok S3 s3://{BUCKET}/store of the steps: {tried}" in table

        cluster.add(config("torch2kubeflow-s3", AWS_ENDPOINT_URL_S3=server.url))
        cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint=server.address))
        cluster.add(secret("mlpipeline-minio-artifact", accesskey=READER_KEY, secretkey=READER_SECRET))
        _, table = examine()
        assert "access is denied -> allow these credentials to list the bucket, and read, write and delete" in table

        cluster.add(launcher(f"minio://{BUCKET}/artifacts", endpoint="seaweedfs.kubeflow:9000"))
        cluster.add(secret("mlpipeline-minio-artifact", accesskey=KEY, secretkey=SECRET))
        _, table = examine("--s3-endpoint", server.url)
        assert f"ok S3 s3://{BUCKET}/artifacts of KFP's launcher: {tried}" in table

        with proxy(server.address) as careless:  # one that answers a conditional write as if it had been done
            careless.script = [hand_on, hand_on, answer(200)]
            _, table = examine("--s3-endpoint", careless.url)
        assert "warning S3" in table
        assert "the server ignores If-None-Match or If-Match; runs at the same time may overwrite each other" in table
        assert "written, read and removed, also in parts\n" in table


def many_nodes(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run_verb(doctor, *words, pipeline=pipeline.distributed)
    return code, unfold(capsys.readouterr().out)


def test_what_many_nodes_need_is_missed_and_found(cluster: KubeServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, table = many_nodes(capsys=capsys)
    assert code == 1
    assert "problem Trainer there is no Kubeflow Trainer 2 in this cluster -> install it, 2.2 or newer" in table
    cluster.custom["trainingruntimes"] = []
    code, table = many_nodes(capsys=capsys)
    remedy = "kubectl apply -n kubeflow -k manifests/trainer"
    assert f"problem Trainer no TrainingRuntime torch2kubeflow in namespace kubeflow -> {remedy}" in table
    cluster.custom["trainingruntimes"] = [{"metadata": {"name": "torch2kubeflow"}}]
    cluster.account_lacks = {"delete trainjobs"}
    code, table = many_nodes(capsys=capsys)
    assert code == 1 and "problem Trainer service account pipeline-runner may not delete trainjobs -> add" in table
    cluster.account_lacks = set()
    assert "ok Trainer Trainer is there, and TrainingRuntime torch2kubeflow" in many_nodes(capsys=capsys)[1]
    assert "can take step train-distributed" in table and "would admit the training pod" in table


def test_many_nodes_are_no_matter_of_a_graph_that_cannot_use_them(cluster: KubeServer, examine: Examine) -> None:
    assert "ok Trainer this graph needs no Kubeflow Trainer" in examine()[1]
    assert (
        "problem Trainer nodes=2 is more than this graph trains on -> give --graph distributed" in examine("nodes=2")[1]
    )
