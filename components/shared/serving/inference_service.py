"""An InferenceService of KServe for a version of the registry: its manifest, its names, and what it serves."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from components.shared.core.errors import UserError

Object = dict[str, Any]

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
STABLE_ANNOTATION = "torch2kubeflow/stable"  # the storageUri that serves, where the object does not tell (Knative)
SERVICE_ACCOUNT = "torch2kubeflow-serving"  # of manifests/serving, as are the labels of its NetworkPolicy
LABELS = {"app.kubernetes.io/name": "torch2kubeflow-serving"}
RUNTIME = "kserve-tritonserver"  # of KServe's own installation
MODEL_FORMAT, PROTOCOL = "onnx", "v2"
RESOURCES = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")  # KServe's; a model's name may begin with a figure, too
MAX_NAME = 63  # of a Service
URI = re.compile(r"(?P<model>.+/models/[^/]+)/versions/(?P<version>\d+)/serving/?")


class Predictor(NamedTuple):
    """One of the models that an InferenceService runs side by side."""

    name: str
    storage_uri: str

    @property
    def version(self) -> int | None:
        """The version of the registry; None if the address is not one of a version."""
        found = URI.fullmatch(self.storage_uri)
        return int(found["version"]) if found else None

    def is_of(self, other: "Predictor") -> bool:
        """Return whether both serve versions of one model in one store."""
        ours, theirs = URI.fullmatch(self.storage_uri), URI.fullmatch(other.storage_uri)
        return bool(ours and theirs) and ours["model"] == theirs["model"]  # type: ignore[index]

    def __str__(self) -> str:
        return f"version {self.version}" if self.version is not None else self.storage_uri


def predictor_of(version_uri: str, version: int) -> Predictor:
    """Return the predictor of a version, by the version's address in the store."""
    return Predictor(f"v{version}", f"{version_uri}/serving")


def service_name(service: str, predictor: str) -> str:
    """Return the name of the Kubernetes Service, and of the Deployment, of one predictor."""
    return f"{service}-{predictor}-predictor"


def check_name(service: str, predictor: Predictor) -> None:
    """Raise UserError if KServe would not take the model's name as that of an InferenceService."""
    if not NAME.fullmatch(service):
        raise UserError(
            f"an InferenceService cannot be called {service}: KServe wants a letter first",
            "register the model under another model_name",
        )
    whole = service_name(service, predictor.name)
    if len(whole) > MAX_NAME:
        raise UserError(
            f"the Service {whole} of the InferenceService would have {len(whole)} characters, and Kubernetes allows "
            f"{MAX_NAME}",
            "register the model under a shorter model_name",
        )


def manifest(service: str, predictor: Predictor, runtime: str, mode: str) -> Object:
    """Return a new InferenceService that serves one version."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": {
            "name": service,
            "labels": dict(LABELS),
            "annotations": {MODE_ANNOTATION: mode, STABLE_ANNOTATION: predictor.storage_uri},
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "serviceAccountName": SERVICE_ACCOUNT,
                "model": {
                    "modelFormat": {"name": MODEL_FORMAT},
                    "protocolVersion": PROTOCOL,
                    "runtime": runtime,
                    "storageUri": predictor.storage_uri,
                    "resources": RESOURCES,
                },
            }
        },
    }


def predictor_in(spec: Mapping[str, Any]) -> Predictor:
    """Return what the `predictor` of an InferenceService, or of a canary, serves."""
    return Predictor(spec.get("name", ""), spec.get("model", {}).get("storageUri", ""))


def condition(service: Object, kind: str) -> Object:
    """Return a condition of an InferenceService; an empty one if it has none of that type."""
    conditions = service.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == kind), {})


def is_true(service: Object, kind: str) -> bool:
    """Return whether a condition is there and holds."""
    return bool(condition(service, kind).get("status") == "True")


def reason_of(service: Object, *kinds: str) -> str:
    """Return why an InferenceService is not ready, by its conditions of these types; empty if none tells."""
    return next(_reasons(service, kinds), "")


def _reasons(service: Object, kinds: tuple[str, ...]) -> Iterator[str]:
    for kind in kinds:
        found = condition(service, kind)
        if found and found.get("status") != "True" and (text := found.get("message") or found.get("reason")):
            yield f"{kind}: {text}"
