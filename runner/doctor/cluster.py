"""The Kubernetes API as the checks ask it: one namespace, and the one in which Kubeflow Pipelines itself runs."""

import base64
from collections.abc import Callable
from functools import cached_property
from typing import Any

import yaml
from kubernetes.client import ApiClient, CoreV1Api, V1Namespace, V1ServiceAccount
from kubernetes.client.exceptions import ApiException

from components.shared.core.errors import UserError

SECONDS = (5, 15)  # to connect, to answer
ARGO = "workflow-controller-configmap"  # what Argo's controller is told
PROFILE = {"app.kubernetes.io/part-of": "kubeflow-profile"}


class Cluster:
    """A cluster as seen by a user of `namespace`; what it holds is asked for when a check needs it."""

    def __init__(self, api: ApiClient, namespace: str, kfp_namespace: str) -> None:
        self.api, self.namespace, self.kfp_namespace = api, namespace, kfp_namespace
        self.core = CoreV1Api(api)

    @property
    def is_standalone(self) -> bool:
        """Whether runs live beside KFP itself, and not in a user's Profile."""
        return self.namespace == self.kfp_namespace

    @property
    def service_account(self) -> str:
        """The service account that KFP gives to a pipeline's pods."""
        return "pipeline-runner" if self.is_standalone else "default-editor"

    def ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What the API answers; None where there is no such object. ApiException for every other refusal."""
        try:
            return call(*arguments, _request_timeout=SECONDS)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def items(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The items of a list; ApiException where it may not be read."""
        return list(call(*arguments, _request_timeout=SECONDS).items)

    @cached_property
    def home(self) -> V1Namespace | None:
        """The namespace's own object; None where it is absent."""
        return self.ask(self.core.read_namespace, self.namespace)

    @property
    def labels(self) -> dict[str, str]:
        """The namespace's labels."""
        return (self.home and self.home.metadata.labels) or {}

    @cached_property
    def account(self) -> V1ServiceAccount | None:
        """That service account; None where it is absent."""
        return self.ask(self.core.read_namespaced_service_account, self.service_account, self.namespace)

    def secret(self, name: str) -> dict[str, str] | None:
        """The values of a Secret as text; None where it is absent."""
        found = self.ask(self.core.read_namespaced_secret, name, self.namespace)
        return found and {k: base64.b64decode(v).decode(errors="replace") for k, v in (found.data or {}).items()}

    def config(self, name: str, namespace: str | None = None) -> dict[str, str] | None:
        """The values of a ConfigMap; None where it is absent."""
        found = self.ask(self.core.read_namespaced_config_map, name, namespace or self.namespace)
        return found and dict(found.data or {})


def argo_setting(cluster: Cluster, key: str) -> dict[str, Any] | None:
    """A setting of Argo's controller, empty where it is not set; None where the ConfigMap is absent."""
    data = cluster.config(ARGO, cluster.kfp_namespace)
    if data is None:
        return None
    if "config" in data:  # Argo reads either this one key or all the others
        return parse_yaml(data, "config", ARGO).get(key) or {}
    return parse_yaml(data, key, ARGO)


def parse_yaml(config: dict[str, str], key: str, name: str) -> dict[str, Any]:
    """The mapping under a key of ConfigMap `name`, empty where the key is absent; UserError where it is no mapping."""
    try:
        found = yaml.safe_load(config.get(key, "")) or {}
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"ConfigMap {name} has no YAML mapping in its key {key}; correct it")
    return found
