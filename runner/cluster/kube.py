"""The Kubernetes API: a client from the kubeconfig or a pod, its errors in one line, and a tunnel to KFP's pod."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
import yaml
from kubernetes.config import ConfigException
from kubernetes.stream import portforward
from urllib3.connection import HTTPConnection

from components.shared.core.errors import UserError
from runner.cluster.options import is_in_pod
from runner.cluster.rest import ApiError

API_PORT = 8888
API_PODS = "app=ml-pipeline"
REMEDIES = {401: "log in to the cluster again", 403: "ask for that right"}


def kube_client(context: str | None = None) -> kubernetes.client.ApiClient:
    """Return a client of the Kubernetes API: a pod's own, or by the kubeconfig. Raises UserError if that fails."""
    path = os.environ.get("KUBECONFIG", "~/.kube/config")
    try:
        if is_in_pod(context):
            configuration = kubernetes.client.Configuration()
            kubernetes.config.load_incluster_config(configuration)
            return kubernetes.client.ApiClient(configuration)
        return kubernetes.config.new_client_from_config(path, context)
    except (ConfigException, yaml.YAMLError, OSError, TypeError, AttributeError, ValueError) as error:
        exists = any(Path(part).expanduser().exists() for part in path.split(os.pathsep))
        raise UserError(
            f"no cluster is known: kubeconfig {path}: {error if exists else 'no such file'}",
            "correct it, give --context, or reach KFP with --host URL",
        ) from None


@contextmanager
def kube_errors(action: str) -> Iterator[None]:
    """Raise ApiError if the Kubernetes API refuses to do `action`, such as "list pods", or cannot be reached."""
    try:
        yield
    except kubernetes.client.ApiException as error:
        remedy = REMEDIES.get(error.status, "see the cluster")
        message = f"Kubernetes refuses to {action} ({error.status} {error.reason})"
        raise ApiError(error.status, message, remedy) from None
    except urllib3.exceptions.HTTPError as error:
        why = str(getattr(error, "reason", None) or error).rpartition(": ")[2]
        message = f"the Kubernetes API cannot be reached to {action} ({why})"
        raise ApiError(0, message, "check the kubeconfig's context, or reach KFP with --host URL") from None


def tunnel(kube: kubernetes.client.CoreV1Api, namespace: str) -> type[HTTPConnection]:
    """Return an HTTP connection that goes through the Kubernetes API to the pod of KFP's API, without a local port."""

    class Tunnel(HTTPConnection):
        def _new_conn(self) -> Any:
            pod = _api_pod(kube, namespace)  # perhaps not the one of the last connection
            with kube_errors(f"forward a port to pod {pod}"):
                connect_to = kube.connect_get_namespaced_pod_portforward
                return portforward(connect_to, pod, namespace, ports=str(API_PORT)).socket(API_PORT)

    return Tunnel


def _api_pod(kube: kubernetes.client.CoreV1Api, namespace: str) -> str:
    with kube_errors(f"list pods in namespace {namespace}"):
        pods = kube.list_namespaced_pod(namespace, label_selector=API_PODS, _request_timeout=30).items
    for pod in pods:
        if pod.status.phase == "Running":
            return str(pod.metadata.name)
    raise ApiError(
        503,
        f"no pod {API_PODS} runs in namespace {namespace}",
        "give KFP's own namespace with --kfp-namespace, or its address with --host URL",
    )
