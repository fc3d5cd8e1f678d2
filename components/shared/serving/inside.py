"""How a pod of the cluster reaches a model server: by the name of its Kubernetes Service, else by its pods' address."""

from functools import partial
from http.client import HTTPConnection

from components.shared.serving.kserve import Pods
from components.shared.serving.kubernetes_api import KubernetesApi
from components.shared.serving.open_inference import Connect, NotServed

SECONDS = 60.0  # between two bytes of an answer


def connect_inside(api: KubernetesApi, pods: Pods) -> Connect:
    """Return what connects to the model server. Raises NotServed if no pod of it runs."""
    host, port = pods.address or _address(api, pods)
    return partial(HTTPConnection, host, port, timeout=SECONDS)


def _address(api: KubernetesApi, pods: Pods) -> tuple[str, int]:
    found = api.get(f"/api/v1/namespaces/{pods.namespace}/pods", labelSelector=pods.selector).get("items", [])
    for pod in found:
        if pod["status"].get("phase") == "Running" and pod["status"].get("podIP"):
            return str(pod["status"]["podIP"]), int(pods.port)
    raise NotServed(f"no pod {pods.selector} runs in namespace {pods.namespace}", "see the pods of the namespace")
