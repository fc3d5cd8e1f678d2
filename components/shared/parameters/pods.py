"""The parameters of the pods in a cluster, which Kubernetes reads and no step."""

from typing import Annotated, Any

from components.shared.parameters.kubernetes_values import (
    TOLERATION,
    refuse_cpu,
    refuse_label,
    refuse_memory,
    refuse_name,
    refuse_resource,
    refuse_toleration,
)
from components.shared.parameters.recipe import Accepts, Recipe, explained, parameter

Name = Annotated[str, explained(refuse_name), Accepts("a Kubernetes name: lower-case letters, digits, - and .")]


def _refuse_labels(labels: dict[str, Any]) -> str:
    for key, value in labels.items():
        why = refuse_label(key, value) if isinstance(value, str) else f"the value of {key!r} is no text"
        if why:
            return why
    return ""


def _refuse_tolerations(tolerations: list[Any]) -> str:
    for number, item in enumerate(tolerations, 1):
        if why := refuse_toleration(item):
            return why if len(tolerations) == 1 else f"toleration {number}: {why}"
    return ""


class Secrets(Recipe):
    """The Secrets and the ConfigMap of all pods."""

    s3_secret: Name = parameter(
        "torch2kubeflow-s3",
        "Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without it, the pod's own identity is used.",
    )
    s3_config: Name = parameter(
        "torch2kubeflow-s3",
        "ConfigMap with AWS_ENDPOINT_URL_S3, AWS_REGION and, for an authority of your own, ca.crt; all may be absent.",
    )
    source_secret: Name = parameter(
        "torch2kubeflow-source", "Secret with the same names, for a data source in another S3."
    )


class Pods(Secrets):
    """The resources and the nodes of the pods that train, and the Secrets of all."""

    gpu_resource: Annotated[
        str, explained(refuse_resource), Accepts("a Kubernetes resource such as nvidia.com/gpu")
    ] = parameter("nvidia.com/gpu", "Kubernetes' name of the GPU resource, such as nvidia.com/gpu or amd.com/gpu.")
    node_selector: Annotated[
        dict[str, Any], explained(_refuse_labels), Accepts('an object of labels such as {"disk": "ssd"}')
    ] = parameter({}, 'Labels of the nodes to train on, such as {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}.')
    tolerations: Annotated[
        list[Any],
        explained(_refuse_tolerations),
        Accepts(f"a list of objects with {', '.join(TOLERATION)} as Kubernetes knows them"),
    ] = parameter(
        [], 'Taints that the training pod tolerates, such as [{"key": "nvidia.com/gpu", "operator": "Exists"}].'
    )
    train_cpu: Annotated[
        str,
        explained(refuse_cpu),
        Accepts("a Kubernetes quantity such as 2, 0.5 or 500m"),
    ] = parameter("2", "CPUs of the training pod, in a cluster.")
    train_memory: Annotated[
        str,
        explained(refuse_memory),
        Accepts("a Kubernetes quantity such as 16Gi"),
    ] = parameter("4Gi", "Memory of the training pod, in a cluster.")
