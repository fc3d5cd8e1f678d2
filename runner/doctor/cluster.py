"""What the checks read from the Kubernetes API: the namespace of the runs, and the one of Kubeflow Pipelines."""

import base64
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

from kubernetes.client import ApiClient, AppsV1Api, CoreV1Api, V1Deployment, V1Namespace, V1ServiceAccount
from kubernetes.client.exceptions import ApiException

from runner.cluster.artifacts.location import parse_yaml

SECONDS = (5, 15)  # to connect, to answer
ARGO = "workflow-controller-configmap"  # the configuration of Argo's controller
PROFILE_ACCOUNT = "default-editor"  # of a Profile, with which KFP runs its pods
PROFILE = {"app.kubernetes.io/part-of": "kubeflow-profile"}


class Cluster:
    """A cluster as a user of `namespace` sees it; its objects are read when a check needs them."""

    def __init__(self, api: ApiClient, namespace: str, kfp_namespace: str) -> None:
        self.api, self.namespace, self.kfp_namespace = api, namespace, kfp_namespace
        self.core = CoreV1Api(api)

    @property
    def is_standalone(self) -> bool:
        """Return whether runs live in KFP's own namespace, not in a user's Profile."""
        return self.namespace == self.kfp_namespace

    @property
    def service_account(self) -> str:
        """Return the name of the service account that KFP gives to a pipeline's pods."""
        return "pipeline-runner" if self.is_standalone else PROFILE_ACCOUNT

    def read(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return the object that `call` reads, or None if it does not exist. Raises ApiException if it is refused."""
        try:
            return call(*arguments, _request_timeout=SECONDS)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def items(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        """Return the items that `call` lists. Raises ApiException if it is refused."""
        return list(call(*arguments, **options, _request_timeout=SECONDS).items)

    @cached_property
    def namespace_object(self) -> V1Namespace | None:
        """Return the namespace of the runs, or None if it does not exist."""
        return self.read(self.core.read_namespace, self.namespace)

    @property
    def namespace_labels(self) -> dict[str, str]:
        """Return the labels of the namespace of the runs."""
        return (self.namespace_object and self.namespace_object.metadata.labels) or {}

    @cached_property
    def account(self) -> V1ServiceAccount | None:
        """Return the service account of the pods, or None if it does not exist."""
        return self.read(self.core.read_namespaced_service_account, self.service_account, self.namespace)

    def secret(self, name: str) -> dict[str, str] | None:
        """Return the values of a Secret as text, or None if it does not exist."""
        found = self.read(self.core.read_namespaced_secret, name, self.namespace)
        return found and {k: base64.b64decode(v).decode(errors="replace") for k, v in (found.data or {}).items()}

    def config_map(self, name: str, namespace: str | None = None) -> dict[str, str] | None:
        """Return the values of a ConfigMap, or None if it does not exist."""
        found = self.read(self.core.read_namespaced_config_map, name, namespace or self.namespace)
        return found and dict(found.data or {})

    def deployment(self, name: str) -> V1Deployment | None:
        """Return a deployment of KFP's namespace, or None if it does not exist."""
        return self.read(AppsV1Api(self.api).read_namespaced_deployment, name, self.kfp_namespace)


def parse_version(text: str) -> tuple[int, int] | None:
    """Return the first two numbers of a version such as v2.3.0, or None if it is none."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def argo_setting(cluster: Cluster, key: str) -> dict[str, Any] | None:
    """Return a setting of Argo's controller, empty if it is not set, or None if its ConfigMap does not exist."""
    data = cluster.config_map(ARGO, cluster.kfp_namespace)
    if data is None:
        return None
    if "config" in data:  # Argo reads either this one key or all the others
        return parse_yaml(data, "config", ARGO).get(key) or {}
    return parse_yaml(data, key, ARGO)
