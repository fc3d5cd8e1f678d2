"""Builders of the Kubernetes objects and of the KFP version that doctor's tests put into a cluster."""

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import yaml
from kubernetes import client

import pipeline
from components import steps
from runner.doctor.preflight import pods_of
from runner.parameters import complete
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer

IMAGES = (steps.DATA_IMAGE, steps.SERVE_IMAGE, steps.TORCH_IMAGE)
STANDALONE, PROFILE = "kubeflow", "ada"  # namespaces: KFP's own, and a user's
PUBLIC, PRIVATE = "AKIDOCTOR", "kept-secret-2f9c"
CLOSED_S3 = "http://127.0.0.1:1"  # nothing listens there
STEP_LABELS = {"app.kubernetes.io/part-of": "torch2kubeflow"}
PROFILE_LABELS = {"app.kubernetes.io/part-of": "kubeflow-profile"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}  # of a namespace
Examine = Callable[..., tuple[int, str]]  # the fixtures' types
AssertFound = Callable[..., None]
TOLERATE_ALL = 'tolerations=[{"operator": "Exists"}]'


def meta(name: str, namespace: str = "", **more: Any) -> client.V1ObjectMeta:
    return client.V1ObjectMeta(name=name, namespace=namespace or None, **more)


def namespace(name: str, labels: dict[str, str] | None = None) -> client.V1Namespace:
    return client.V1Namespace(metadata=meta(name, labels={"kubernetes.io/metadata.name": name, **(labels or {})}))


def secret(name: str, namespace: str = STANDALONE, **values: str) -> client.V1Secret:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return client.V1Secret(metadata=meta(name, namespace), data=data)


def s3_secret(private: str = PRIVATE, namespace: str = STANDALONE) -> client.V1Secret:
    """The Secret with the steps' S3 credentials."""
    return secret("torch2kubeflow-s3", namespace, AWS_ACCESS_KEY_ID=PUBLIC, AWS_SECRET_ACCESS_KEY=private)


def launcher_secret(namespace: str = STANDALONE, **values: str) -> client.V1Secret:
    """The Secret with the launcher's S3 credentials."""
    return secret("mlpipeline-minio-artifact", namespace, **(values or {"accesskey": PUBLIC, "secretkey": PRIVATE}))


def config_map(name: str, namespace: str = STANDALONE, **values: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=meta(name, namespace), data=values)


def s3_config(endpoint: str = CLOSED_S3, namespace: str = STANDALONE, **values: str) -> client.V1ConfigMap:
    """The ConfigMap with the steps' S3 server."""
    return config_map("torch2kubeflow-s3", namespace, AWS_ENDPOINT_URL_S3=endpoint, **values)


def launcher(
    root: str = "minio://mlpipeline/v2/artifacts", namespace: str = STANDALONE, **changes: Any
) -> client.V1ConfigMap:
    """KFP's ConfigMap with one provider, whose settings may be changed."""
    credentials = {
        "fromEnv": False,
        "secretRef": {
            "secretName": "mlpipeline-minio-artifact",
            "accessKeyKey": "accesskey",
            "secretKeyKey": "secretkey",
        },
    }
    settings = {"endpoint": CLOSED_S3.removeprefix("http://"), "disableSSL": True, "credentials": credentials}
    providers = yaml.safe_dump({root.partition(":")[0]: {"default": settings | changes}})
    return config_map("kfp-launcher", namespace, defaultPipelineRoot=root, providers=providers)


def argo(policy: str = "", **executor: Any) -> client.V1ConfigMap:
    """The configuration of Argo's controller: its retry policy, and settings of its own containers."""
    strategy = {"spec": {"templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": policy}}}}
    data = {"workflowDefaults": yaml.safe_dump(strategy)} if policy else {}
    if executor:
        data["executor"] = yaml.safe_dump(executor)
    return config_map("workflow-controller-configmap", **data)


def trainer_version(version: str, namespace: str = "kubeflow-system") -> client.V1ConfigMap:
    """What Kubeflow Trainer tells to all users."""
    return config_map("kubeflow-trainer-public", namespace, kubeflow_trainer_version=version)


def katib(image: str = "ghcr.io/kubeflow/katib/katib-controller:v0.19.0") -> client.V1Deployment:
    """Katib's controller."""
    template = client.V1PodTemplateSpec(
        spec=client.V1PodSpec(containers=[client.V1Container(name="katib", image=image)])
    )
    spec = client.V1DeploymentSpec(selector=client.V1LabelSelector(), template=template)
    return client.V1Deployment(metadata=meta("katib-controller", STANDALONE), spec=spec)


def controller(**variables: str) -> client.V1Deployment:
    """Argo's controller, with these variables and one of KFP's own."""
    given = {"TRANSIENT_ERROR_PATTERN": "(?i)preempt", **variables}
    env = [client.V1EnvVar(name=name, value=value) for name, value in given.items()]
    template = client.V1PodTemplateSpec(
        spec=client.V1PodSpec(containers=[client.V1Container(name="workflow-controller", env=env)])
    )
    spec = client.V1DeploymentSpec(selector=client.V1LabelSelector(), template=template)
    return client.V1Deployment(metadata=meta("workflow-controller", STANDALONE), spec=spec)


def in_one_key(settings: client.V1ConfigMap, **others: str) -> client.V1ConfigMap:
    """The same settings in the other form that Argo knows, all under `config`; Argo ignores the keys `others`."""
    whole = {key: yaml.safe_load(value) for key, value in settings.data.items()}
    return config_map(settings.metadata.name, config=yaml.safe_dump(whole), **others)


def service_account(name: str = "pipeline-runner", namespace: str = STANDALONE, **more: Any) -> client.V1ServiceAccount:
    return client.V1ServiceAccount(metadata=meta(name, namespace, **more))


def s3_service(target_port: int | str = 8333, **spec: Any) -> client.V1Service:
    """The Service of KFP's object store."""
    ports = [client.V1ServicePort(port=9000, target_port=target_port)]
    given = {"selector": {"app": "seaweedfs"}, "ports": ports, **spec}
    return client.V1Service(metadata=meta("seaweedfs", STANDALONE), spec=client.V1ServiceSpec(**given))


def s3_pod(phase: str = "Running") -> client.V1Pod:
    """The pod of KFP's object store."""
    port = client.V1ContainerPort(container_port=8333, name="http-s3")
    return client.V1Pod(
        metadata=meta("seaweedfs-0", STANDALONE, labels={"app": "seaweedfs"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="seaweedfs", ports=[port])]),
        status=client.V1PodStatus(phase=phase),
    )


def kubernetes_endpoints() -> client.V1Endpoints:
    addresses = [client.V1EndpointAddress(ip="10.0.0.1")]
    subsets = [client.V1EndpointSubset(addresses=addresses, ports=[client.CoreV1EndpointPort(port=6443)])]
    return client.V1Endpoints(metadata=meta("kubernetes", "default"), subsets=subsets)


def node(name: str, *taints: str, labels: dict[str, str] | None = None, **allocatable: str) -> client.V1Node:
    """A node that has the steps' images; taints as key=value:effect, `gpu` for nvidia.com/gpu."""
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110", **allocatable}
    if "gpu" in amounts:
        amounts["nvidia.com/gpu"] = amounts.pop("gpu")
    return client.V1Node(
        metadata=meta(name, labels=labels),
        spec=client.V1NodeSpec(taints=[_taint(text) for text in taints]),
        status=client.V1NodeStatus(
            allocatable=amounts,
            images=[client.V1ContainerImage(names=[image]) for image in IMAGES],
        ),
    )


def other_pod(name: str, *, ends: bool, node: str = "worker", phase: str = "Running", **requests: str) -> client.V1Pod:
    """A pod of somebody else on a node: one that ends by itself, such as a run's, or that of a service."""
    container = client.V1Container(name="main", resources=client.V1ResourceRequirements(requests=requests))
    restarts = "Never" if ends else "Always"
    return client.V1Pod(
        metadata=meta(name, "other"),
        spec=client.V1PodSpec(containers=[container], node_name=node, restart_policy=restarts),
        status=client.V1PodStatus(phase=phase),
    )


def gpu_node() -> client.V1Node:
    """A node with four A100, for pods that tolerate its taint."""
    return node("gpu", "nvidia.com/gpu=present:NoSchedule", labels={"nvidia.com/gpu.product": "A100"}, gpu="4")


def _taint(text: str) -> client.V1Taint:
    pair, _, effect = text.partition(":")
    key, _, value = pair.partition("=")
    return client.V1Taint(key=key, value=value or None, effect=effect)


def quota(
    hard: dict[str, str], used: dict[str, str] | None = None, namespace: str = STANDALONE
) -> client.V1ResourceQuota:
    return client.V1ResourceQuota(
        metadata=meta("team", namespace),
        spec=client.V1ResourceQuotaSpec(hard=hard),
        status=client.V1ResourceQuotaStatus(hard=hard, used=used),
    )


def limit_range(kind: str = "Container", **item: dict[str, str]) -> client.V1LimitRange:
    """A LimitRange as the API server stores it: of containers, with the defaults that it adds."""
    if kind == "Container":
        item["default"] = {**item.get("max", {}), **item.get("default", {})}
        item["default_request"] = {**item.get("min", {}), **item["default"], **item.get("default_request", {})}
    limits = [client.V1LimitRangeItem(type=kind, **item)]
    return client.V1LimitRange(metadata=meta("team", STANDALONE), spec=client.V1LimitRangeSpec(limits=limits))


def default_limits() -> client.V1LimitRange:
    """A LimitRange with a default for what a quota may count."""
    return limit_range(default={"cpu": "1", "memory": "1Gi"}, default_request={"cpu": "100m", "memory": "128Mi"})


def model_of(document: dict[str, Any]) -> Any:
    """The client's model of a manifest."""
    return client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(document)), f"V1{document['kind']}")


def policy(namespace: str, **spec: Any) -> client.V1NetworkPolicy:
    """A policy for all pods, with the `spec` of a manifest."""
    metadata = {"name": "policy", "namespace": namespace}
    return model_of({"kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}, **spec}})


def pods_with(image: str) -> list[client.V1Pod]:
    """The pods of a run whose steps all use that image."""
    pods = pods_of(pipeline.training, complete(pipeline.training, {}))
    for pod in pods:
        pod.spec.containers[0].image = image
    return pods


def set_version(server: KfpServer, tag: str, multi_user: bool = False) -> None:
    """Answer with a version as KFP's server does, in a field that the client's model does not have."""
    body = json.dumps({"commit_sha": "0", "tag_name": tag, "multi_user": multi_user}).encode()
    server.multi_user = multi_user
    server.namespaces.add(PROFILE)
    server._faults.clear()
    server.script("GET /healthz", *[lambda handler, _request: handler.reply(200, body)] * 2)


def make_profile(server: KubeServer) -> None:
    """Add a Profile, with what Kubeflow's controllers create in it."""
    server.add(namespace(PROFILE, PROFILE_LABELS), service_account("default-editor", PROFILE))
    server.add(s3_secret(namespace=PROFILE), launcher_secret(PROFILE))
    server.add(s3_config(namespace=PROFILE), launcher(namespace=PROFILE))
