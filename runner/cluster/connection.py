"""How a verb reaches Kubeflow Pipelines: by its address, from a pod, or through the Kubernetes API.

Tokens and cookies come from files or the environment, never from the command line, where every user could read them.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes
import urllib3
import yaml
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kubernetes.config import ConfigException
from kubernetes.stream import portforward
from urllib3.connection import HTTPConnection

from components.shared.core.errors import UserError
from runner.cluster.rest import ApiError, Rest
from runner.kfp_patches import Client

API_PORT = 8888
API_PODS = "app=ml-pipeline"
PROJECTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAGES = {"run": "runs", "pipeline": "pipelines", "recurring_run": "recurringrun"}


@dataclass(frozen=True)
class Connection:
    """A way to Kubeflow Pipelines that has been tried."""

    client: Client
    namespace: str  # where the pods of runs live
    multi_user: bool
    ui: str | None  # None behind a port-forward, which ends with us
    kfp_namespace: str
    kube: kubernetes.client.CoreV1Api | None  # the cluster itself, where we may ask it
    rest: Rest

    @property
    def scope(self) -> str | None:
        """The namespace as KFP's API wants it: None where there is one user."""
        return self.namespace if self.multi_user else None

    def ui_link(self, kind: str, id: str) -> str:
        """The page of a run, pipeline (`id/version/id` for a version), recurring_run or experiment in KFP's UI."""
        page = f"#/{PAGES[kind]}/details/{id}"
        if self.ui:
            return f"{self.ui.rstrip('/')}/{page}"
        forward = f"kubectl port-forward -n {self.kfp_namespace} svc/ml-pipeline-ui 8080:80"
        return f"http://localhost:8080/{page} (after `{forward}`)"

    def every(self, items: str, method: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
        """All `items` that a list method of the client gives, page after page."""
        token = ""
        while True:
            page = method(page_token=token, page_size=100, **arguments)
            yield from getattr(page, items) or []
            token = page.next_page_token
            if not token:
                return

    def read_text(self, path: str) -> str | None:
        """Text that KFP serves beside its API, such as a log; None where there is none to be had."""
        api = self.client.runs.api_client
        headers = {**api.default_headers, **({"Cookie": api.cookie} if api.cookie else {})}
        api.update_params_for_auth(headers, [], ["Bearer"])
        return self.rest.read_text(api.configuration.host + path, headers)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the connection to a verb."""
    group = parser.add_argument_group("connection", "Without --host, a port-forward through the Kubernetes API.")
    group.add_argument("--host", metavar="URL", help="KFP's address, with https:// [KF_PIPELINES_ENDPOINT]")
    group.add_argument("--namespace", metavar="NAME", help="where runs live, if KFP has many users [KFP_NAMESPACE]")
    group.add_argument("--context", metavar="NAME", help="the context of the kubeconfig, instead of the current one")
    group.add_argument("--kfp-namespace", default="kubeflow", metavar="NAME", help="where KFP lives (%(default)s)")
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="a Bearer token, read anew for each request [KF_PIPELINES_SA_TOKEN_PATH; the token: KFP_EXISTING_TOKEN]",
    )
    group.add_argument("--cookie-file", type=Path, metavar="FILE", help="a session's cookie [the cookie: KFP_COOKIE]")
    group.add_argument(
        "--ca", type=Path, metavar="FILE", help="authorities that sign KFP's certificate [SSL_CERT_FILE]"
    )


def connect(arguments: argparse.Namespace, namespace: str | None = None) -> Connection:
    """Reach Kubeflow Pipelines as the options and the environment say, for runs in `namespace` if it is given.

    Raises UserError if it cannot be reached.
    """
    host = _host(arguments)
    kube, tunnel = None, None
    if arguments.context or not host:
        kube = kubernetes.client.CoreV1Api(kube_client(arguments.context))
    if not host and not _in_pod(arguments.context):
        tunnel = _tunnel(kube, arguments.kfp_namespace)
    address = host or f"http://ml-pipeline.{arguments.kfp_namespace}:{API_PORT}"
    client, rest = _client(address, arguments, tunnel)
    multi_user = bool(client.get_kfp_healthz().multi_user)
    namespace = namespace or runs_namespace(arguments, multi_user)
    client.use_namespace(namespace if multi_user else "")
    return Connection(
        client=client,
        namespace=namespace,
        multi_user=multi_user,
        ui=os.environ.get("KF_PIPELINES_UI_ENDPOINT") or host,
        kfp_namespace=arguments.kfp_namespace,
        kube=kube,
        rest=rest,
    )


def kube_client(context: str | None = None) -> kubernetes.client.ApiClient:
    """A client of the Kubernetes API: a pod's own, or as the kubeconfig says; UserError where that is of no use."""
    place = os.environ.get("KUBECONFIG", "~/.kube/config")
    try:
        if _in_pod(context):
            configuration = kubernetes.client.Configuration()
            kubernetes.config.load_incluster_config(configuration)
            return kubernetes.client.ApiClient(configuration)
        return kubernetes.config.new_client_from_config(place, context)
    except (ConfigException, yaml.YAMLError, OSError, TypeError, AttributeError, ValueError) as error:
        is_there = any(Path(part).expanduser().exists() for part in place.split(os.pathsep))
        told = str(error) if is_there else "no such file"
        raise UserError(
            f"no cluster is known: kubeconfig {place}: {told}",
            "fix it, give --context, or reach KFP with --host URL",
        ) from None


@contextmanager
def kube_errors(asked: str) -> Iterator[None]:
    """Tell in one line what the Kubernetes API refuses while we do what `asked` says: ApiError."""
    try:
        yield
    except kubernetes.client.ApiException as error:
        remedy = {401: "log in to the cluster again", 403: "ask for that right"}.get(error.status, "see the cluster")
        raise ApiError(error.status, f"Kubernetes refuses to {asked} ({error.status} {error.reason})", remedy) from None
    except urllib3.exceptions.HTTPError as error:
        why = getattr(error, "reason", None) or error
        raise ApiError(
            0,
            f"the Kubernetes API cannot be reached to {asked} ({str(why).rpartition(': ')[2]})",
            "check the kubeconfig's context, or reach KFP with --host URL",
        ) from None


def _client(address: str, arguments: argparse.Namespace, tunnel: type[HTTPConnection] | None) -> tuple[Client, Rest]:
    authority = arguments.ca or os.environ.get("SSL_CERT_FILE")
    token_file = _token_file(arguments)
    cookie = _secret(arguments.cookie_file, "--cookie-file") or _secret_variable("KFP_COOKIE")
    if authority and not os.access(authority, os.R_OK):
        raise UserError(f"--ca {authority} cannot be read; give a file of certificates in PEM form")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about servers older than 2.0
        client = Client(
            host=address,
            cookies=cookie,
            existing_token=None if token_file else _secret_variable("KFP_EXISTING_TOKEN"),
            credentials=ServiceAccountTokenVolumeCredentials(str(token_file)) if token_file else None,
            ssl_ca_cert=authority and str(authority),
        )
    api = client.runs.api_client  # one for all services
    api.rest_client = Rest(api.configuration, cookie, tunnel)
    return client, api.rest_client


def _host(arguments: argparse.Namespace) -> str | None:
    """KFP's address, if one is given; UserError where it is no URL, or holds a password."""
    given: str = arguments.host or os.environ.get("KF_PIPELINES_ENDPOINT") or os.environ.get("KFP_ENDPOINT") or ""
    host = given.strip()
    if not host:
        return None
    if "@" in host:
        raise UserError("the address of KFP holds a user or password; give it alone, and a token with --token-file")
    try:
        parts = urlsplit(host)
        _ = parts.port  # which is read only here
    except ValueError as error:
        raise UserError(f"{host} is no address ({error}); give https://NAME or https://NAME:PORT") from None
    if parts.scheme not in ("http", "https"):
        raise UserError(f"{host} has no scheme; write https://{host.rpartition('://')[2]} (or http://)")
    if not parts.hostname:
        raise UserError(f"{host} names no machine; write https://NAME")
    return host


def _token_file(arguments: argparse.Namespace) -> Path | None:
    """The file with the token: the one named or, in a pod, the one that KFP's own server may see."""
    named = arguments.token_file or os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if named:
        _secret(Path(named), "--token-file")
        return Path(named)
    return PROJECTED_TOKEN if PROJECTED_TOKEN.exists() and not _host(arguments) else None


def _secret(path: Path | None, option: str) -> str | None:
    """The one line in a file; UserError where it is something else."""
    if path is None:
        return None
    try:
        return _plain(path.read_text(), f"{option} {path}")
    except OSError as error:
        raise UserError(f"{option} {path} cannot be read ({error.strerror}); give another file") from None
    except UnicodeDecodeError:
        raise UserError(f"{option} {path} is no text; give another file") from None


def _secret_variable(name: str) -> str | None:
    """The one line in a variable of the environment, if it is set; UserError where it is something else."""
    value = os.environ.get(name)
    return _plain(value, name) if value else None


def _plain(text: str, place: str) -> str:
    """A token or cookie as a header takes it; UserError that does not show it."""
    text = text.strip()  # files and Secrets often end in a newline
    if not text or not (text.isascii() and text.isprintable()):
        raise UserError(f"{place} holds no single line of ASCII; put nothing but the token or cookie into it")
    return text


def _in_pod(context: str | None) -> bool:
    return context is None and "KUBERNETES_SERVICE_HOST" in os.environ and POD_NAMESPACE.exists()


def runs_namespace(arguments: argparse.Namespace, multi_user: bool) -> str:
    """The namespace of the runs; UserError where there are many users and none is named."""
    named: str | None = arguments.namespace or os.environ.get("KFP_NAMESPACE")
    if not named and multi_user and POD_NAMESPACE.exists():
        named = POD_NAMESPACE.read_text().strip()
    if not named and multi_user:
        raise UserError("this KFP has many users; say with --namespace in which Profile the runs live")
    return named or str(arguments.kfp_namespace)


def _tunnel(kube: kubernetes.client.CoreV1Api, namespace: str) -> type[HTTPConnection]:
    """An HTTP connection that leads through the Kubernetes API to the pod of KFP's API server, by no local port."""

    class Tunnel(HTTPConnection):
        def _new_conn(self) -> Any:
            pod = _api_pod(kube, namespace)  # another one, perhaps, than for the last connection
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
        503, f"no pod {API_PODS} runs in namespace {namespace}; give KFP's own with --kfp-namespace, or --host URL"
    )
