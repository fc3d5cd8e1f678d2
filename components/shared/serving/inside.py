"""How a pod of the cluster reaches a model server: by the name of its Kubernetes Service, else by its pods' address."""

from functools import partial
from http.client import HTTPConnection

from components.shared.core import pod
from components.shared.core.errors import UserError
from components.shared.serving.kserve import Kserve, Pods
from components.shared.serving.kubernetes_api import KubernetesApi, api_of_pod
from components.shared.serving.open_inference import Connect, NotServed

SECONDS = 60.0  # between two bytes of an answer


def kserve_of_pod(namespace: str) -> Kserve:
    """Return KServe as this pod's service account finds it, in its own namespace if none is named.

    Raises UserError if this is no pod of a cluster.
    """
    try:
        return Kserve(api_of_pod(), namespace or pod.namespace())
    except OSError as error:
        raise UserError(
            f"this is no pod of a cluster ({error})", "deploy from here by python pipeline.py deploy"
        ) from None


def connect_inside(api: KubernetesApi, pods: Pods) -> Connect:
    """Return what connects to the model server. Raises NotServed if no pod of it runs."""
    host, port = pods.address or _address(api, pods)
    return partial(HTTPConnection, host, port, timeout=SECONDS)


def _address(api: KubernetesApi, pods: Pods) -> tuple[str, int]:
    found = api.get(f"/api/v1/namespaces/{pods.namespace}/pods", labelSelector=pods.selector).get("items", [])
    for one in found:
        if one["status"].get("phase") == "Running" and one["status"].get("podIP"):
            return str(one["status"]["podIP"]), int(pods.port)
    raise NotServed(f"no pod {pods.selector} runs in namespace {pods.namespace}", "see the pods of the namespace")
