"""A store of the cluster, with the keys and the address that the steps' pods have.

They are in a Secret and a ConfigMap of the namespace of the runs. A server that only pods reach is reached as KFP is:
by a port-forward through the Kubernetes API.
"""

import argparse
import base64
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import kubernetes
from urllib3.connection import HTTPConnection

from components.shared.core.errors import UserError
from components.shared.storage.client import Store, open_store
from components.shared.storage.retry import ATTEMPTS
from runner.cluster.kube import Target, is_reachable, kube_client, kube_errors, labels_of, open_tunnel, port_of
from runner.cluster.rest import ApiError

ENDPOINT, CA_BUNDLE = "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"
AUTHORITY = "ca.crt"  # a key of the ConfigMap


@contextmanager
def cluster_store(uri: str, arguments: argparse.Namespace) -> Iterator[Store]:
    """Open the store at `uri` as the options name a cluster. Raises UserError if that is not possible from here."""
    kube = kubernetes.client.CoreV1Api(kube_client(arguments.context))
    namespace = arguments.namespace or os.environ.get("KFP_NAMESPACE") or arguments.kfp_namespace
    with steps_store(kube, namespace, uri, arguments.s3_secret, arguments.s3_config) as store:
        yield store


@contextmanager
def steps_store(
    kube: kubernetes.client.CoreV1Api, namespace: str, uri: str, secret: str, config: str, attempts: int = ATTEMPTS
) -> Iterator[Store]:
    """Open the store at `uri` as the pods of the namespace do, which sends a request up to `attempts` times.

    Raises UserError if that is not possible from here.
    """
    objects = Objects(kube, namespace)
    environment = (objects.config_map(config) or {}) | (objects.secret(secret) or {})
    if "AWS_ACCESS_KEY_ID" not in environment:
        raise UserError(
            f"no keys are in Secret {secret} of namespace {namespace}, which pods may do without",
            "name the namespace of the runs, such as a Profile, with --namespace, or give keys in the environment",
        )
    with tempfile.TemporaryDirectory() as folder:
        if authority := environment.pop(AUTHORITY, ""):
            path = Path(folder) / AUTHORITY
            path.write_text(authority)
            environment[CA_BUNDLE] = str(path)
        connection = connection_to(kube, namespace, environment.get(ENDPOINT, ""))
        yield open_store(uri, environment, attempts=attempts, connection=connection)


class Objects:
    """The Secrets and ConfigMaps of a namespace. Reading one raises ApiError if Kubernetes refuses it."""

    def __init__(self, kube: kubernetes.client.CoreV1Api, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace

    def secret(self, name: str) -> dict[str, str] | None:
        """Return the values of a Secret that are not empty, as text; None if it does not exist."""
        found = self._read("Secret", self._kube.read_namespaced_secret, name)
        if found is None:
            return None
        values = {
            key: base64.b64decode(value).decode(errors="replace").strip() for key, value in (found.data or {}).items()
        }
        return {key: value for key, value in values.items() if value}

    def config_map(self, name: str) -> dict[str, str] | None:
        """Return the values of a ConfigMap; None if it does not exist."""
        found = self._read("ConfigMap", self._kube.read_namespaced_config_map, name)
        return None if found is None else dict(found.data or {})

    def _read(self, kind: str, method: Any, name: str) -> Any:
        """Return an object; None if there is none: the pods do without it, too."""
        try:
            with kube_errors(f"read {kind} {name} in namespace {self._namespace}"):
                return method(name, self._namespace, _request_timeout=30)
        except ApiError as error:
            if error.status != 404:
                raise
            return None


def connection_to(kube: Any, namespace: str, endpoint: str) -> type[HTTPConnection] | None:
    """Return a connection through the Kubernetes API to a server that cannot be reached otherwise; None for others."""
    address = urlsplit(endpoint)
    if not endpoint or is_reachable(address):
        return None
    return open_tunnel(kube, _target(kube, namespace, address), address.scheme)


def _target(kube: Any, namespace: str, address: SplitResult) -> Target:
    """Return the pods and their port behind a Service's address. Raises UserError if it is none."""
    name, _, rest = (address.hostname or "").partition(".")
    of = rest.partition(".")[0] or namespace
    try:
        with kube_errors(f"read Service {name} in namespace {of}"):
            spec = kube.read_namespaced_service(name, of, _request_timeout=30).spec
    except ApiError as error:
        if error.status != 404:
            raise
        raise UserError(
            f"{address.geturl()} cannot be reached from this machine, and namespace {of} has no Service {name}",
            f"check {ENDPOINT} in the ConfigMap, or give the environment an address that this machine reaches",
        ) from None
    ports = [one for one in spec.ports or [] if one.port == port_of(address)]
    if not ports or not spec.selector:
        raise UserError(f"Service {name} of namespace {of} has no pods at port {port_of(address)}", f"check {ENDPOINT}")
    return Target(
        of, labels_of(spec.selector), ports[0].target_port or ports[0].port, f"see `kubectl -n {of} get pods`"
    )
