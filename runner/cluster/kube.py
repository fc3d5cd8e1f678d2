"""The Kubernetes API: a client from the kubeconfig or a pod, its errors in one line, and tunnels to pods."""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

import kubernetes
import urllib3
import yaml
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException
from kubernetes.stream import portforward, ws_client
from urllib3.connection import HTTPConnection, HTTPSConnection

from components.shared.core.errors import UserError
from components.shared.core.proxy import fault_of, proxy_for
from runner.cluster.options import check_encrypted, is_in_pod
from runner.cluster.rest import ApiError

CONNECT_SECONDS = 3
API_PORT = 8888
API_PODS = "app=ml-pipeline"
REMEDIES = {401: "log in to the cluster again", 403: "ask for that right"}
HANDSHAKE = re.compile(r"Handshake status (\d+) (.*?) -\+-\+- ")  # of a websocket that was refused


class KubeClient(kubernetes.client.ApiClient):  # type: ignore[misc]
    """A client that asks for new credentials once they are refused: an expired token need not be the last one."""

    def __init__(self, load: Callable[..., None]) -> None:
        """Configure it by `load`, which reads the kubeconfig and runs its plugin, or reads the pod's token."""
        self._load = load
        configuration = kubernetes.client.Configuration()
        load(client_configuration=configuration)
        super().__init__(configuration)

    def call_api(self, *arguments: Any, **options: Any) -> Any:
        """Send a request, and once more if the first was refused for its credentials."""
        try:
            return super().call_api(*arguments, **options)
        except kubernetes.client.ApiException as error:
            if _status_of(error)[0] != 401:
                raise
        self._load(client_configuration=self.configuration)
        self.rest_client = RESTClientObject(self.configuration)  # perhaps with another certificate
        return super().call_api(*arguments, **options)


def kube_client(context: str | None = None) -> KubeClient:
    """Return a client of the Kubernetes API: a pod's own, or by the kubeconfig. Raises UserError if that fails."""
    return KubeClient(partial(_load, context))


def _load(context: str | None, client_configuration: kubernetes.client.Configuration) -> None:
    path = os.environ.get("KUBECONFIG", "~/.kube/config")
    try:
        if is_in_pod(context):
            kubernetes.config.load_incluster_config(client_configuration)
        else:
            kubernetes.config.load_kube_config(path, context, client_configuration)
    except (ConfigException, yaml.YAMLError, OSError, TypeError, AttributeError, ValueError) as error:
        exists = any(os.path.exists(os.path.expanduser(part)) for part in path.split(os.pathsep))
        raise UserError(
            f"no cluster is known: kubeconfig {path}: {error if exists else 'no such file'}",
            "correct it, give --context, or reach KFP with --host URL",
        ) from None
    if client_configuration.api_key:
        remedy = f"give the https:// address of the cluster in the kubeconfig {path}"
        check_encrypted(client_configuration.host, "the token of the Kubernetes API", remedy)
    _set_proxy(client_configuration)


def _set_proxy(configuration: kubernetes.client.Configuration) -> None:
    """Let a client go by the proxy of its server's address, or by none.

    Its websockets would ask the environment themselves, by rules of their own, if no proxy were set.
    """
    proxy = proxy_for(configuration.host)
    configuration.proxy = proxy.address if proxy else "http://none.invalid:1"
    configuration.proxy_headers = proxy.headers if proxy else None
    configuration.no_proxy = None if proxy else urlsplit(configuration.host).hostname


@contextmanager
def kube_errors(action: str) -> Iterator[None]:
    """Raise ApiError if the Kubernetes API refuses to do `action`, such as "list pods", or cannot be reached."""
    try:
        yield
    except kubernetes.client.ApiException as error:
        status, reason = _status_of(error)
        message = f"Kubernetes refuses to {action} ({status} {reason})"
        raise ApiError(status, message, REMEDIES.get(status, "see the cluster")) from error
    except urllib3.exceptions.HTTPError as error:
        why, remedy = _unreachable(error)
        raise ApiError(0, f"the Kubernetes API cannot be reached to {action} ({why})", remedy) from None


def _unreachable(error: urllib3.exceptions.HTTPError) -> tuple[str, str]:
    """Return why the Kubernetes API does not answer, and the remedy."""
    reason, pool = getattr(error, "reason", None) or error, getattr(error, "pool", None)
    if pool and (fault := fault_of(reason, f"{pool.scheme}://{pool.host}:{pool.port}")):
        return fault.reason, fault.remedy
    return str(reason).rpartition(": ")[2], "check the kubeconfig's context, or reach KFP with --host URL"


def _status_of(error: kubernetes.client.ApiException) -> tuple[int, str]:
    """Return status and reason of an answer, also of one to a websocket."""
    handshake = HANDSHAKE.match(error.reason or "")
    return (int(handshake[1]), handshake[2]) if handshake else (error.status, error.reason)


class _PortForward(ws_client.PortForward):  # type: ignore[misc]
    """A port-forward whose thread ends without a traceback on the terminal if one end hangs up."""

    def _proxy(self) -> None:
        with suppress(OSError):
            super()._proxy()
        self.websocket.shutdown()


ws_client.PortForward = _PortForward


class Target(NamedTuple):
    """Where a tunnel leads: a port, by its number or its name, of one of the pods with these labels."""

    namespace: str
    selector: str
    port: int | str
    remedy: str  # if none of these pods runs


def kfp_api(namespace: str) -> Target:
    """Return where the API of the KFP in that namespace listens."""
    remedy = "give KFP's own namespace with --kfp-namespace, or its address with --host URL"
    return Target(namespace, API_PODS, API_PORT, remedy)


def tunnel(
    kube: kubernetes.client.CoreV1Api, target: Target, base: type[HTTPConnection] = HTTPConnection
) -> type[HTTPConnection]:
    """Return an HTTP connection that goes through the Kubernetes API to a pod, without a local port.

    Connecting raises ApiError if that fails.
    """
    lock = threading.Lock()  # the client replaces its own `request` while it opens a websocket

    def connect(_connection: HTTPConnection) -> Any:
        with lock:
            pod = _running_pod(kube, target)  # perhaps not the one of the last connection
            name, port = pod.metadata.name, _port_number(pod, target.port)
            with kube_errors(f"forward a port to pod {name}"):
                connect_to = kube.connect_get_namespaced_pod_portforward
                return portforward(connect_to, name, target.namespace, ports=str(port)).socket(port)

    return type("Tunnel", (base,), {"_new_conn": connect})


def open_tunnel(kube: kubernetes.client.CoreV1Api, target: Target, scheme: str = "http") -> type[HTTPConnection]:
    """Return a tunnel that was tried: ApiError comes now, and not after a minute of a client's retries."""
    connection = tunnel(kube, target, HTTPSConnection if scheme == "https" else HTTPConnection)
    connection("")._new_conn().close()
    return connection


def is_reachable(address: SplitResult) -> bool:
    """Return whether something listens at an address, within seconds.

    Behind a proxy only a request would tell, and any address counts but that of a Service.
    """
    if proxy_for(address.geturl()) and not is_internal(address.geturl()):
        return True
    try:
        socket.create_connection((address.hostname or "", port_of(address)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def is_internal(endpoint: str) -> bool:
    """Return whether an address is that of a Service, which only pods can reach."""
    host = urlsplit(endpoint).hostname or ""
    return host != "localhost" and (".svc" in host or host.count(".") < 2)


def port_of(address: SplitResult) -> int:
    """Return the port of an address, by default that of its scheme."""
    return address.port or (443 if address.scheme == "https" else 80)


def labels_of(selector: Mapping[str, str]) -> str:
    """Return the selector of a Service as one for a list of pods."""
    return ",".join(f"{label}={value}" for label, value in selector.items())


def _running_pod(kube: kubernetes.client.CoreV1Api, target: Target) -> Any:
    with kube_errors(f"list pods in namespace {target.namespace}"):
        pods = kube.list_namespaced_pod(target.namespace, label_selector=target.selector, _request_timeout=30).items
    for pod in pods:
        if pod.status.phase == "Running":
            return pod
    raise ApiError(503, f"no pod {target.selector} runs in namespace {target.namespace}", target.remedy)


def _port_number(pod: Any, port: int | str) -> int:
    """Return the number of a pod's port. Raises ApiError if it has none of that name."""
    if isinstance(port, int):
        return port
    for named in (one for container in pod.spec.containers for one in container.ports or []):
        if named.name == port:
            return int(named.container_port)
    raise ApiError(404, f"pod {pod.metadata.name} has no port named {port}", "correct targetPort of the Service")
