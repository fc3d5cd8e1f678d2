"""How this machine reaches a model server in the cluster: by a port-forward through the Kubernetes API."""

from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from typing import Any

import kubernetes

from components.shared.serving.inside import SECONDS, connect_inside
from components.shared.serving.kserve import Pods
from components.shared.serving.kubernetes_api import KubernetesApi
from components.shared.serving.open_inference import Connect
from runner.cluster.kube import KubeClient, Target, tunnel
from runner.cluster.options import is_in_pod


class _Forwarded(HTTPConnection):
    """A connection whose socket is a port-forward."""

    def __init__(self, forward: Any) -> None:
        super().__init__("model-server", timeout=SECONDS)
        self._forward = forward

    def connect(self) -> None:
        """Open the port-forward. Raises ApiError if that fails."""
        self.sock = self._forward("")._new_conn()
        self.sock.settimeout(self.timeout)


def connections(client: KubeClient, api: KubernetesApi, context: str | None) -> Callable[[Pods], Connect]:
    """Return what finds the way to a model server: the cluster's own in a pod, else a port-forward."""
    if is_in_pod(context):
        return partial(connect_inside, api)
    core = kubernetes.client.CoreV1Api(client)
    return lambda pods: partial(_Forwarded, _forward(core, pods))


def _forward(core: kubernetes.client.CoreV1Api, pods: Pods) -> Any:
    remedy = f"see `kubectl -n {pods.namespace} get pods -l {pods.selector}`"
    return tunnel(core, Target(pods.namespace, pods.selector, pods.port, remedy))
